//! Header fields of a message: finding them, reading From, adding what is missing.
