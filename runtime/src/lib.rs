//! What every mesh process has: workers, tasks with an owner, draining, readiness, the admin port, logs, clock, denial counters.
//!
//! Nothing here knows the mesh's wire formats or TLS; programs build on it and stay thin.

pub mod admin;
pub mod clock;
pub mod denied;
pub mod drain;
pub mod process;
pub mod ready;
pub mod tasks;
pub mod telemetry;
pub mod workers;
