//! Connections of anyone in the network.
