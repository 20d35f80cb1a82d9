//! The daemon: wires all the other modules together, and nothing else does.

pub mod lifecycle;
pub mod log;
pub mod sockets;
