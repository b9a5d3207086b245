//! Modbus TCP on the wire: a header of transaction, protocol 0, length and unit before each protocol data unit.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::chance::Chance;

/// Longest protocol data unit of Modbus. A header that announces more is no Modbus; the connection is closed.
const PDU_LENGTH_MAX: usize = 253;

/// One request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) transaction: u16,
    pub(crate) unit: u8,
    pub(crate) pdu: Vec<u8>,
}

/// Reads the next request; an error when the client has gone or does not speak Modbus.
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Request> {
    let (transaction, protocol, length) = (from.read_u16().await?, from.read_u16().await?, from.read_u16().await?);
    let length = usize::from(length);
    if protocol != 0 || !(2..=PDU_LENGTH_MAX + 1).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a Modbus TCP header"));
    }
    let unit = from.read_u8().await?;
    let mut pdu = vec![0; length - 1];
    from.read_exact(&mut pdu).await?;
    Ok(Request { transaction, unit, pdu })
}

/// The frame of an answer.
pub(crate) fn frame(transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let length = u16::try_from(pdu.len() + 1).unwrap_or(u16::MAX);
    let mut frame = Vec::with_capacity(pdu.len() + 7);
    frame.extend(transaction.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(length.to_be_bytes());
    frame.push(unit);
    frame.extend(pdu);
    frame
}

/// What a broken board or a noisy line sends in place of an answer: noise, half a frame, or a well-formed frame that
/// answers another request, another function, or another count.
pub(crate) fn garbage(chance: &mut Chance, request: &Request, pdu: &[u8]) -> Vec<u8> {
    let whole = frame(request.transaction, request.unit, pdu);
    match chance.byte() % 5 {
        0 => (0..1 + chance.byte() % 20).map(|_| chance.byte()).collect(),
        1 => whole.iter().take(whole.len() / 2).copied().collect(),
        2 => frame(request.transaction.wrapping_sub(1), request.unit, pdu),
        3 => frame(request.transaction, request.unit, &[0x04, 2, chance.byte(), chance.byte()]),
        _ => frame(request.transaction, request.unit, &[request.pdu.first().copied().unwrap_or(2), 9, chance.byte()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_what_it_writes_and_refuses_other_protocols() {
        let request = frame(0x0102, 1, &[2, 0, 0, 0, 8]);
        assert_eq!(request, [1, 2, 0, 0, 0, 6, 1, 2, 0, 0, 0, 8]);
        let read_back = read(&mut request.as_slice()).await.unwrap();
        assert_eq!(read_back, Request { transaction: 0x0102, unit: 1, pdu: vec![2, 0, 0, 0, 8] });
        for (bytes, kind) in [
            (&b"GET / HTTP/1.1\r\n"[..], io::ErrorKind::InvalidData),
            (&[0, 1, 0, 0, 0, 1, 1], io::ErrorKind::InvalidData),
            (&[0, 1, 0, 0, 0xFF, 0xFF, 1], io::ErrorKind::InvalidData),
            (&[0, 1, 0, 0, 0, 6, 1, 2, 0], io::ErrorKind::UnexpectedEof),
            (&[], io::ErrorKind::UnexpectedEof),
        ] {
            assert_eq!(read(&mut &*bytes).await.unwrap_err().kind(), kind, "{bytes:02X?}");
        }
    }
}
