#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vitadapt_fuzz::safetensors(bytes));
