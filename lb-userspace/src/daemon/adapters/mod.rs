//! The real rooms behind the seams of the event loop.

mod checks;
mod network;
mod plane;

use std::sync::Arc;

use tracing::{info, warn};

use super::start::Opened;
use super::state::Rooms;
use crate::config::model::Config;
use crate::dataplane::{self, DataPlane};
use crate::net::Net;

use checks::Checks;
use network::Network;
use plane::Plane;

/// Opens the rooms: the data plane first, since most of what can be wrong with a host is found
/// there.
///
/// # Errors
/// A room cannot be opened; what was done for those before it is taken back.
pub async fn open(config: &Config) -> anyhow::Result<Opened<Plane, Network, Checks>> {
    let wanted = config.clone();
    let (plane, notes) = tokio::task::spawn_blocking(move || DataPlane::open(&wanted)).await??;
    for note in notes {
        warn!("{note}");
    }
    let plane = Arc::new(plane);
    let adopted = plane.was_adopted();
    let pin_dir = config.global.pin_dir.clone();
    let undo = move || {
        if adopted {
            return;
        }
        match dataplane::teardown(&pin_dir) {
            Ok(_) => info!("the start failed: what it had attached was taken away again"),
            Err(error) => warn!(error = format!("{error:#}"), "cannot take back what was attached"),
        }
    };
    let attached = config.interfaces.iter().map(|interface| interface.name.clone()).collect();
    let started = Net::start(attached, config.global.state_dir.clone()).await;
    let (net, news) = match started {
        Ok(started) => started,
        Err(error) => {
            undo();
            return Err(error.context("cannot watch the network"));
        }
    };
    let (network, events) = network::start(net, news);
    let (checks, health) = checks::start(plane.clone());
    let plane = Plane::new(plane);
    Ok(Opened {
        rooms: Rooms { plane, network, checks },
        health,
        network: events,
        undo: Box::new(undo),
        adopted,
    })
}
