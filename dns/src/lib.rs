//! DNS for the mesh's names: authoritative for `clusterset.local` and `<cluster>.mesh`, from one snapshot, with a copy on disk.

pub mod answer;
pub mod config;
pub mod name;
pub mod run;
pub mod serve;

pub use config::Flags;
pub use run::main;
