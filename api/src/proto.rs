//! What `build.rs` generates from `proto/*.proto`. Nothing here is checked: [`crate::translate`] does that.

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::large_futures,
    clippy::too_many_lines,
    clippy::use_self,
    reason = "generated code"
)]
mod generated {
    tonic::include_proto!("isthmus.v1");
}

pub use generated::*;
