//! The PROXY protocol, versions 1 and 2: the client's address in the words of a proxy in front.
//!
//! A listener takes the header from configured addresses only, and requires it there. It is read
//! to its last byte and no further, since TLS or MQTT begins right behind it. TLVs are skipped.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::{HeaderResult, v1, v2};
use tokio::net::TcpStream;

/// Longest header taken, in bytes: version 1 has 107 at most; version 2 gets room for two IPv6
/// addresses or Unix paths (216) and some TLVs.
const HEADER_BYTES_MAX: usize = 536;

/// How a version 2 header begins.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of a version 2 header up to and with its length.
const V2_FIXED_BYTES: usize = 16;

/// How a version 1 header begins and ends, and its most bytes.
const V1_PREFIX: &[u8] = b"PROXY ";
const V1_BYTES_MAX: usize = 107;

/// The address that the header names; `None` when the proxy speaks for itself (LOCAL) or does not
/// know (UNKNOWN, another family than IP).
///
/// # Errors
/// [`io::ErrorKind::InvalidData`]: it is no header, or too long; else the socket's own.
pub(super) async fn read_header(socket: &TcpStream) -> io::Result<Option<IpAddr>> {
    let mut header = [0; HEADER_BYTES_MAX];
    let mut len = 0;
    loop {
        let free = header.get_mut(len..).unwrap_or_default();
        let peeked = socket.peek(free).await?;
        if peeked == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let known = header.get(..len + peeked).unwrap_or_default();
        let (upto, is_whole) = match end(known)? {
            Some(end) => (end, true),
            None => (known.len(), false),
        };
        // What was seen belongs to the header: it is taken, and nothing behind it.
        let mine = header.get_mut(len..upto).unwrap_or_default();
        let mut taken = 0;
        while let Some(rest) = mine.get_mut(taken..).filter(|rest| !rest.is_empty()) {
            taken += socket.try_read(rest)?;
        }
        len = upto;
        if is_whole {
            return address(header.get(..len).unwrap_or_default());
        }
    }
}

/// Where the header that begins `bytes` ends; `None` if that is further on.
fn end(bytes: &[u8]) -> io::Result<Option<usize>> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(is, should)| is == should);
    let (end, most) = if begins(V2_SIGNATURE) {
        let length = bytes.get(V2_FIXED_BYTES - 2..V2_FIXED_BYTES);
        let end = length.and_then(|length| <[u8; 2]>::try_from(length).ok());
        let end = end.map(|length| V2_FIXED_BYTES + usize::from(u16::from_be_bytes(length)));
        (end, HEADER_BYTES_MAX)
    } else if begins(V1_PREFIX) {
        let line_end = bytes.windows(2).position(|pair| pair == b"\r\n");
        (line_end.map(|at| at + 2), V1_BYTES_MAX)
    } else {
        return Err(bad("no PROXY header"));
    };
    if end.unwrap_or(bytes.len()) > most || (end.is_none() && bytes.len() >= most) {
        return Err(bad("the PROXY header is too long"));
    }
    Ok(end.filter(|end| *end <= bytes.len()))
}

fn address(header: &[u8]) -> io::Result<Option<IpAddr>> {
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
            v1::Addresses::Tcp6(addresses) => Some(addresses.source_address.into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) => Ok(match (header.command, header.addresses) {
            (v2::Command::Proxy, v2::Addresses::IPv4(addresses)) => {
                Some(addresses.source_address.into())
            }
            (v2::Command::Proxy, v2::Addresses::IPv6(addresses)) => {
                Some(addresses.source_address.into())
            }
            _ => None,
        }),
        _ => Err(bad("the PROXY header cannot be read")),
    }
}

fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The address of a peer, IPv4 as IPv4 also where the listener is an IPv6 one.
pub(super) fn peer(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        header.extend(body);
        header
    }

    fn read(bytes: &[u8]) -> io::Result<Option<IpAddr>> {
        match end(bytes)? {
            Some(end) => address(&bytes[..end]),
            None => panic!("cut"),
        }
    }

    #[test]
    fn both_versions_name_the_client() {
        let client = Some(IpAddr::from([192, 0, 2, 7]));
        let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 1883\r\n\x10\x0e";
        assert_eq!(read(line).unwrap(), client);
        let body = [
            192, 0, 2, 7, 198, 51, 100, 1, 0xc3, 0x50, 7, 0x5b, 4, 0, 1, 9,
        ];
        assert_eq!(
            read(&v2(1, 0x11, &body)).unwrap(),
            client,
            "with a TLV behind"
        );
        let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 1883\r\n";
        assert_eq!(read(line).unwrap(), Some("2001:db8::7".parse().unwrap()));
    }

    #[test]
    fn a_proxy_may_speak_for_itself() {
        assert_eq!(read(b"PROXY UNKNOWN\r\n").unwrap(), None);
        assert_eq!(read(b"PROXY UNKNOWN ffff::1 ::2 1 2\r\n").unwrap(), None);
        assert_eq!(read(&v2(0, 0, &[])).unwrap(), None);
        assert_eq!(read(&v2(1, 0x31, &[0; 216])).unwrap(), None, "Unix paths");
    }

    #[test]
    fn what_is_no_header_is_refused_at_the_first_wrong_byte() {
        for wrong in [
            &b"\x10\x0e\x00\x04MQTT"[..],
            b"P\x10",
            b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIX",
            b"GET / HTTP/1.1\r\n",
        ] {
            assert!(end(wrong).is_err(), "{wrong:?}");
        }
        for wrong in [
            &b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n"[..],
            b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
            b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY \r\n",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(read(&v2(1, 0x11, &[1, 2])).is_err(), "addresses cut short");
        assert!(read(&v2(7, 0x11, &[0; 12])).is_err(), "an unknown command");
    }

    #[test]
    fn a_header_has_a_longest_length() {
        let mut line = b"PROXY TCP4 ".to_vec();
        line.resize(V1_BYTES_MAX, b'1');
        assert!(end(&line).is_err());
        assert!(end(&line[..V1_BYTES_MAX - 1]).unwrap().is_none());
        let long = v2(1, 0x11, &[0; HEADER_BYTES_MAX]);
        assert!(
            end(&long[..V2_FIXED_BYTES]).is_err(),
            "before the rest came"
        );
        let longest = v2(1, 0x11, &[0; HEADER_BYTES_MAX - V2_FIXED_BYTES]);
        assert_eq!(end(&longest).unwrap(), Some(HEADER_BYTES_MAX));
    }

    #[test]
    fn every_cut_is_waited_for() {
        for whole in [
            &b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 1883\r\n"[..],
            &v2(1, 0x11, &[1; 12]),
        ] {
            for cut in 1..whole.len() {
                assert_eq!(end(&whole[..cut]).unwrap(), None, "{cut}");
            }
        }
    }
}
