//! stub
mod effect;
pub use effect::*;
