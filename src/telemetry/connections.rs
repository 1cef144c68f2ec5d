//! Connections that this process ended, counted.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// A listener of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Listener {
    /// The HTTP API, for tokens.
    Api,
    /// The same on loopback, for reading.
    Local,
    /// Probes and scrapers, of the controller and of the agent.
    Probes,
}

/// Why we ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ConnectionEnd {
    /// There were too many, of its peer or in all, and it had waited longest.
    MadeRoom,
    /// No request came in time, or an answer was not read.
    TooSlow,
    /// It sent a body in chunks.
    Refused,
    /// What it sent is no HTTP/1.1, has too long a head, or is no TLS at a port with TLS.
    Unreadable,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    listener: Listener,
    reason: ConnectionEnd,
}

/// The connections that we ended; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Connections(Family<ConnectionLabels, Counter>);

impl Connections {
    /// Adds those of these listeners to what is served at `/metrics`.
    pub fn register(&self, listeners: &[Listener], registry: &mut Registry) {
        // A counter that appears with its first event hides that event from rate().
        for listener in listeners {
            for reason in [
                ConnectionEnd::MadeRoom,
                ConnectionEnd::TooSlow,
                ConnectionEnd::Refused,
                ConnectionEnd::Unreadable,
            ] {
                drop(self.0.get_or_create(&ConnectionLabels { listener: *listener, reason }));
            }
        }
        registry.register(
            "http_connections_ended",
            "Connections that this process closed before their peers did, by listener and reason",
            self.0.clone(),
        );
    }

    /// Counts one.
    pub fn ended(&self, listener: Listener, reason: ConnectionEnd) {
        self.0.get_or_create(&ConnectionLabels { listener, reason }).inc();
    }
}
