//! The clients of the control plane. Each keeps what it last knew while the control plane is gone, and says so.

pub mod causes;
pub mod discovery;
pub mod exports;
mod files;
pub mod hold;
pub mod identity;
pub mod imports;
mod retry;
mod state;

pub use discovery::{Discovery, Follow};
pub use hold::Hold;
pub use identity::{Bootstrap, BootstrapFlags, Credentials};
