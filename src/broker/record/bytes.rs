//! Reading and writing the fields of a body. Every read says `None` where too little is left.

/// Takes `N` bytes off the front.
pub(super) fn take<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = body.split_first_chunk::<N>()?;
    *body = rest;
    Some(*head)
}

pub(super) fn take_u8(body: &mut &[u8]) -> Option<u8> {
    take(body).map(|[byte]| byte)
}

pub(super) fn take_u16(body: &mut &[u8]) -> Option<u16> {
    take(body).map(u16::from_le_bytes)
}

pub(super) fn take_u32(body: &mut &[u8]) -> Option<u32> {
    take(body).map(u32::from_le_bytes)
}

pub(super) fn take_u64(body: &mut &[u8]) -> Option<u64> {
    take(body).map(u64::from_le_bytes)
}

/// Takes so many bytes off the front.
pub(super) fn take_slice<'a>(body: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (slice, rest) = body.split_at_checked(len)?;
    *body = rest;
    Some(slice)
}

/// A length in 4 bytes, then so many bytes.
pub(super) fn take_long<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_u32(body)?).ok()?;
    take_slice(body, len)
}

/// A length in 2 bytes, then UTF-8.
pub(super) fn take_text<'a>(body: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::from(take_u16(body)?);
    std::str::from_utf8(take_slice(body, len)?).ok()
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("MQTT strings are at most 65,535 bytes");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&len_u32(bytes));
    out.extend_from_slice(bytes);
}

/// The length as it is written.
pub(super) fn len_u32(bytes: &[u8]) -> [u8; 4] {
    let len = u32::try_from(bytes.len()).expect("a packet is far below 4 GiB");
    len.to_le_bytes()
}
