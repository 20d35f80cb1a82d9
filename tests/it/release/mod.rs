//! The release under limits, against a simulated world and an observer of its own.

mod chaos;
mod observer;
mod promises;
mod world;
