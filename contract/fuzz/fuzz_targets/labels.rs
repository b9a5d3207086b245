#![no_main]
//! Any bytes as labels, a receipt or a topic: decoding returns, and what decodes encodes to what decodes the same.

use carebed_contract::labels::Labels;
use carebed_contract::receipt::Receipt;
use carebed_contract::topic::Topic;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(labels) = Labels::decode(data) {
        assert_eq!(Labels::decode(&labels.encode()).expect("labels decode"), labels);
    }
    if let Ok(receipt) = Receipt::decode(data) {
        assert_eq!(Receipt::decode(&receipt.encode()).expect("a receipt decodes"), receipt);
    }
    if let Some(topic) = std::str::from_utf8(data).ok().and_then(Topic::parse) {
        assert_eq!(Topic::parse(&topic.to_string()).expect("a topic parses"), topic);
    }
});
