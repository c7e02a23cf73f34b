//! OpenAPI.
mod marks;
pub(crate) mod shape;
pub(crate) mod types;
