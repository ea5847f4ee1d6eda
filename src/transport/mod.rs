//! stub
mod admission;
mod connection;
mod tls;
