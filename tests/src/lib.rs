//! What the tests share: a simulated network for the sessions, and real
//! processes for everything else.

pub mod federation;
pub mod node;
pub mod relay;
pub mod sim;
pub mod table;
