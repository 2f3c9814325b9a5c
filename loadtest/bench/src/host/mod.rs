//! Where an arm is measured: servers, CPU time, the machine.

pub mod cpu;
pub mod environment;
pub mod machine;
