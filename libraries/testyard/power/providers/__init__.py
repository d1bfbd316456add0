"""One module per provider: the power of a deployment's machines by the provider's own SDK.

Each has ``open_provider(deployment_id, settings) -> PowerProvider``, which imports the SDK: the SDKs are optional
(the extra ``lab`` brings them) and slow to import.
"""
