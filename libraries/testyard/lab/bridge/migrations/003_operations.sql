-- An operation id is asked for before it is used again for another content.

CREATE INDEX metadata_stamps_of_operation ON metadata_stamps (op_id) WHERE op_id IS NOT NULL;
