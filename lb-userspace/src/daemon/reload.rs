//! A new configuration for a running daemon: all of it, or nothing.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::Loaded;
use super::seams::{Checks, Network, Plane, Scope};
use super::state::Daemon;
use crate::api::model::Reloaded;
use crate::api::protocol::{Failure, FailureKind};
use crate::config::model::{Config, Service};

impl<P: Plane, N: Network, C: Checks> Daemon<P, N, C> {
    /// Reads the configuration file again and puts it in force.
    ///
    /// # Errors
    /// The file does not validate, differs in what only a restart can change, or the data plane
    /// refused it: the configuration before it stays in force.
    pub fn reload(&mut self) -> Result<Reloaded, Failure> {
        let done = self.try_reload();
        match &done {
            Ok(reloaded) if reloaded.changed => {
                self.refused_reload = None;
                let changes = reloaded.changes.join("; ");
                info!(config_hash = %reloaded.config_hash, changes, "configuration reloaded");
            }
            Ok(_) => {
                self.refused_reload = None;
                info!("configuration reloaded: nothing has changed");
            }
            Err(failure) => {
                let error = failure.message.replace(":\n", ": ").replace('\n', "; ");
                error!(error, "reload refused: nothing was changed");
                self.refused_reload = Some(error);
            }
        }
        done
    }

    fn try_reload(&mut self) -> Result<Reloaded, Failure> {
        let Loaded { config, warnings } = (self.load)()
            .map_err(|errors| Failure::new(FailureKind::InvalidConfiguration, errors))?;
        for warning in &warnings {
            warn!("{warning}");
        }
        if config == *self.config {
            let config_hash = self.config.hash.clone();
            return Ok(Reloaded { config_hash, changed: false, changes: vec![], warnings });
        }
        if let Some(message) = fixed(&self.config, &config) {
            return Err(Failure::new(FailureKind::Failed, message));
        }
        let changes = changes(&self.config, &config);
        self.put_in_force(config)?;
        let config_hash = self.config.hash.clone();
        Ok(Reloaded { config_hash, changed: true, changes, warnings })
    }

    /// Ways are watched before the data plane needs them; addresses follow the data plane, so that
    /// no client is answered by the host itself.
    fn put_in_force(&mut self, config: Config) -> Result<(), Failure> {
        let before = std::mem::replace(&mut self.config, Arc::new(config));
        self.rooms.network.watch(&self.config);
        if let Err(error) = self.apply(Scope::Everything) {
            self.config = before;
            self.rooms.network.watch(&self.config);
            self.apply(Scope::Everything).ok(); // logged, noted and tried again
            let message = format!("the data plane refused the new configuration: {error:#}");
            return Err(Failure::new(FailureKind::Failed, message));
        }
        drop(self.rooms.network.set_vips(&self.config)); // clients wait for no reload
        self.rooms.checks.follow(&self.config);
        let config = self.config.clone();
        match self.store.follow(&config) {
            Ok(_) => self.admin = self.store.states(),
            Err(error) => {
                warn!(error = format!("{error:#}"), "administrative states are not saved")
            }
        }
        self.health = self.rooms.checks.views();
        self.forget_absent();
        self.apply(Scope::Everything).ok(); // logged, noted and tried again
        Ok(())
    }
}

/// Which settings differ that a reload cannot change, and what would change them.
fn fixed(old: &Config, new: &Config) -> Option<String> {
    let (a, b) = (&old.global, &new.global);
    let differing = |pairs: &[(&'static str, bool)]| {
        let names: Vec<_> = pairs.iter().filter(|pair| pair.1).map(|pair| pair.0).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let daemons = differing(&[
        ("interfaces", old.interfaces != new.interfaces),
        ("global.socket", a.socket != b.socket),
        ("global.socket_group", a.socket_group != b.socket_group),
        ("global.state_dir", a.state_dir != b.state_dir),
    ]);
    // The pinned tables outlive the daemon.
    let tables = differing(&[
        ("global.pin_dir", a.pin_dir != b.pin_dir),
        ("global.maximum_flows", a.maximum_flows != b.maximum_flows),
        ("global.maximum_half_open", a.maximum_half_open != b.maximum_half_open),
    ]);
    let words = [
        daemons.map(|names| {
            format!(
                "{names} can only change with a restart of the daemon, which interrupts no connection"
            )
        }),
        tables.map(|names| {
            format!(
                "{names} can only change with `medlb teardown`, by the file as it was, and a new \
                 start: connections are lost"
            )
        }),
    ];
    let words: Vec<_> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| {
        format!("{}; do so, or take the change back; nothing was changed", words.join("; "))
    })
}

/// What differs, in words.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut changes = Vec::new();
    let index = |config: &'_ Config| -> HashMap<String, Service> {
        let enabled = config.services.iter().filter(|service| service.enabled);
        enabled.map(|service| (service.label.clone(), service.clone())).collect()
    };
    let (before, after) = (index(old), index(new));
    for service in old.services.iter().filter(|service| service.enabled) {
        match after.get(&service.label) {
            None => changes.push(format!("service {}: removed", service.label)),
            Some(now) if now != service => changes.extend(service_changes(service, now)),
            Some(_) => {}
        }
    }
    for service in new.services.iter().filter(|s| s.enabled && !before.contains_key(&s.label)) {
        let servers = service.real_servers.len();
        changes.push(format!("service {}: added, {servers} real servers", service.label));
    }
    if old.outbound_snat != new.outbound_snat {
        changes.push("outbound_snat: changed".into());
    }
    if old.global != new.global {
        changes.push("global: changed".into());
    }
    if changes.is_empty() {
        changes.push("comments, order or spelling only".into());
    }
    changes
}

fn service_changes(old: &Service, new: &Service) -> Vec<String> {
    let mut changes = Vec::new();
    let name = &new.label;
    for real in &old.real_servers {
        match new.real_servers.iter().find(|now| now.label == real.label) {
            None => changes.push(format!("service {name}: real server {} removed", real.label)),
            Some(now) if now != real => {
                changes.push(format!("service {name}: real server {} changed", real.label));
            }
            Some(_) => {}
        }
    }
    for real in &new.real_servers {
        if !old.real_servers.iter().any(|was| was.label == real.label) {
            changes.push(format!("service {name}: real server {} added", real.label));
        }
    }
    let bare = |service: &Service| Service { real_servers: Vec::new(), ..service.clone() };
    if bare(old) != bare(new) {
        changes.push(format!("service {name}: settings changed"));
    }
    if changes.is_empty() {
        changes.push(format!("service {name}: order of real servers changed"));
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::daemon::testing::config;

    #[test]
    fn a_setting_that_a_reload_cannot_change_is_named_with_what_would_change_it() {
        let old = config(Path::new("/nowhere"), vec![]);
        assert_eq!(fixed(&old, &old), None);
        let mut new = old.clone();
        new.global.socket = "/run/other.sock".into();
        let restart = fixed(&old, &new).unwrap();
        assert!(restart.starts_with("global.socket can only"), "{restart}");
        assert!(restart.contains("interrupts no connection"), "{restart}");

        let mut new = old.clone();
        new.global.maximum_flows += 1;
        let anew = fixed(&old, &new).unwrap();
        assert!(anew.starts_with("global.maximum_flows can only"), "{anew}");
        assert!(anew.contains("connections are lost"), "{anew}");
        assert!(!anew.contains("interrupts no connection"), "{anew}");
    }
}
