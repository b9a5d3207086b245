#![no_main]
//! Any bytes as a payload: decoding returns, and what decodes can be sealed and read back.

use carebed_contract::pack::Pack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, bytes)) = data.split_first() else { return };
    let kinds = ["application/senml+cbor", "application/senml+cbor+zstd", "application/senml+json"];
    let Ok(pack) = Pack::decode(kinds[usize::from(kind) % kinds.len()], bytes) else { return };
    if let Ok(sealed) = pack.seal() {
        let again = Pack::decode(sealed.content_type.as_str(), &sealed.bytes).expect("what was sealed decodes");
        assert_eq!(again.records.len(), pack.records.len());
    }
});
