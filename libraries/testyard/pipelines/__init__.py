"""The backend of PipelineLibrary: a pipeline service as its admin sees it, and the checker of its histories."""
