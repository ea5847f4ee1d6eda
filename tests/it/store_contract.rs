//! What every store must do, checked against the in-memory model of the core package, and after crashes, races and
//! damage. No sockets, no sleeps; every store lies in a folder of its own.

mod admission;
mod audit;
mod audit_events;
mod config;
mod hub;
mod life;
mod lists;
mod own_log;
mod plans;
mod support;
