//! The device between real UNIX sockets and a guest's driver that is written out by hand.

mod driver;
mod hostile;
mod streams;
