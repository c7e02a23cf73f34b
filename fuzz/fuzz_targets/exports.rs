//! Fuzzes [`mesh_fuzz::exports`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mesh_fuzz::exports(bytes);
});
