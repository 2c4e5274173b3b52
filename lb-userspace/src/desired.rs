//! (configuration, health, admin state) -> desired state of the data plane: pure.
