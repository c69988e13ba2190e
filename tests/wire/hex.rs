//! Bytes in hexadecimal.

/// Bytes from hexadecimal digits; spaces are skipped.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| *c != ' ')
        .map(|c| c.to_digit(16).expect("hex digit"))
        .collect();
    assert!(
        digits.len().is_multiple_of(2),
        "an odd number of digits: {text}"
    );
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] << 4 | pair[1]).expect("a byte"))
        .collect()
}

/// Hexadecimal digits of bytes.
pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
