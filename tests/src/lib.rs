//! What the tests share: a simulated network for the sessions, and real
//! processes for everything else.

