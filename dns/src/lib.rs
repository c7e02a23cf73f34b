//! DNS for the mesh's names: authoritative for `clusterset.local` and `<cluster>.mesh`, from one snapshot, with a copy on disk.

pub mod answer;
pub mod name;
pub mod serve;
