//! Questions about this host that need no running task: for checking a configuration.

/// Whether an interface of that name exists.
pub fn interface_exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}
