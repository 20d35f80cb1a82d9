//! One test binary: the daemon's real code in this process, real sockets on 127.0.0.1,
//! real files in a temporary folder. One file a promise.

// Tools of the tests; a tool that waits for its first test is not dead.
#[allow(dead_code)]
mod certificates;
#[allow(dead_code)]
mod client;
#[allow(dead_code)]
mod dns;
#[allow(dead_code)]
mod endpoint;
#[allow(dead_code)]
mod harness;
#[allow(dead_code)]
mod intake;
#[allow(dead_code)]
mod machine;
#[allow(dead_code)]
mod relay;

mod accepting;
mod alarms;
mod changing;
mod confirming;
mod crowding;
mod delivery;
mod hints;
mod hostile;
mod layers;
mod limits;
mod looks;
mod newcomers;
mod oauth;
mod pages;
mod permission;
mod refusals;
mod release;
mod rude;
mod tokens;
mod tools;
mod verifying;
