#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| socket_gateway_fuzz::sockjs_framing::run(data));
