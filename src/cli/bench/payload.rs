//! What a message carries: text of a size, or a template with places that change.

/// Digits of `{time}`: microseconds of the run on top of [`TIME_BASE`], so that the width is
/// always the same and no number starts with 0.
pub(super) const TIME_DIGITS: usize = 13;
/// What `{time}` starts at.
pub(super) const TIME_BASE: u64 = 1_000_000_000_000;
/// Digits of `{random}`: 100 to 999.
const RANDOM_DIGITS: usize = 3;

/// Text with `{connection}`, `{time}` and `{random}` in it.
pub(super) struct Template {
    text: String,
}

/// The payload of a connection.
pub(super) struct Payload {
    pub(super) text: String,
    pub(super) patches: Vec<Patch>,
}

/// A place that is written anew for each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patch {
    at: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Time,
    Random,
}

impl Template {
    pub(super) fn new(text: &str) -> Template {
        Template {
            text: text.to_owned(),
        }
    }

    /// True when each connection has a payload of its own.
    pub(super) fn is_own(&self) -> bool {
        is_own(&self.text)
    }

    /// The payload of one connection.
    pub(super) fn render(&self, connection: usize) -> Payload {
        let mut rest = fill_in(&self.text, connection);
        let mut text = String::new();
        let mut patches = Vec::new();
        loop {
            let time = rest.find("{time}").map(|at| (at, Kind::Time));
            let random = rest.find("{random}").map(|at| (at, Kind::Random));
            let Some((at, kind)) = [time, random].into_iter().flatten().min_by_key(|n| n.0) else {
                break;
            };
            let (before, behind) = rest.split_at(at);
            text.push_str(before);
            patches.push(Patch {
                at: text.len(),
                kind,
            });
            let digits = match kind {
                Kind::Time => TIME_DIGITS,
                Kind::Random => RANDOM_DIGITS,
            };
            text.extend(std::iter::repeat_n('1', digits));
            rest = behind
                .split_once('}')
                .map_or(String::new(), |(_, rest)| rest.to_owned());
        }
        text.push_str(&rest);
        Payload { text, patches }
    }
}

impl Patch {
    /// The same place when the payload starts at `by`.
    pub(super) fn moved(self, by: usize) -> Patch {
        Patch {
            at: self.at + by,
            ..self
        }
    }

    pub(super) fn write(self, message: &mut [u8], now_us: u32, random: &mut u64) {
        let (value, digits) = match self.kind {
            Kind::Time => (TIME_BASE + u64::from(now_us), TIME_DIGITS),
            Kind::Random => {
                // xorshift: quick, and good enough to keep a store from compressing it away.
                *random ^= *random << 13;
                *random ^= *random >> 7;
                *random ^= *random << 17;
                (100 + (*random >> 32) % 900, RANDOM_DIGITS)
            }
        };
        let place = message.get_mut(self.at..self.at + digits);
        write_digits(place.unwrap_or_default(), value);
    }
}

fn write_digits(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).expect("a digit fits");
        value /= 10;
    }
}

/// True when the text names the connection.
pub(super) fn is_own(text: &str) -> bool {
    text.contains("{connection}")
}

/// The text with the connection's number in it.
pub(super) fn fill_in(text: &str, connection: usize) -> String {
    text.replace("{connection}", &connection.to_string())
}

/// JSON of exactly `len` bytes, at least 7: a number and, where there is room, a text.
pub(super) fn of_size(len: usize) -> String {
    const START: &str = "{\"temperature\":21.5,\"text\":\"";
    const END: &str = "\"}";
    match len.checked_sub(START.len() + END.len()) {
        Some(room) => format!("{START}{}{END}", "x".repeat(room)),
        None => format!("{{\"t\":{:0<width$}}}", 1, width = len.saturating_sub(6)),
    }
}

/// What stands before the time in a message whose delivery is measured.
const STAMP: &[u8] = b"\"sent_us\":";
/// The least size of [`stamped`].
pub(super) const STAMPED_BYTES_MIN: usize = 35;

/// A template of `len` bytes, at least [`STAMPED_BYTES_MIN`], that says when it was sent.
pub(super) fn stamped(len: usize) -> Template {
    let room = len.saturating_sub(STAMPED_BYTES_MIN);
    Template::new(&format!(
        "{{\"sent_us\":{{time}},\"text\":\"{}\"}}",
        "x".repeat(room)
    ))
}

/// When a message was sent, in microseconds of the run. The stamp may stand anywhere: a broker may
/// put a frame around what it delivers.
pub(super) fn sent_us(bytes: &[u8]) -> Option<u32> {
    let at = bytes.windows(STAMP.len()).position(|part| part == STAMP)?;
    let digits = bytes.get(at + STAMP.len()..at + STAMP.len() + TIME_DIGITS)?;
    let value = std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?;
    u32::try_from(value.checked_sub(TIME_BASE)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_json_of_the_length_asked_for() {
        for len in 7..300 {
            let payload = of_size(len);
            assert_eq!(payload.len(), len);
            let value: serde_json::Value = serde_json::from_str(&payload).unwrap();
            assert!(value.is_object(), "{payload}");
        }
    }

    #[test]
    fn a_stamp_is_found_wherever_it_stands() {
        for len in [STAMPED_BYTES_MIN, 60, 200] {
            let payload = stamped(len).render(0);
            assert_eq!(payload.text.len(), len, "{}", payload.text);
            let mut bytes = payload.text.into_bytes();
            for patch in payload.patches {
                patch.write(&mut bytes, 4_000_000_000, &mut 1);
            }
            assert_eq!(sent_us(&bytes), Some(4_000_000_000));
            let framed = [b"{\"values\":".as_slice(), &bytes, b"}"].concat();
            assert_eq!(sent_us(&framed), Some(4_000_000_000));
        }
        assert_eq!(sent_us(b"{\"sent_us\":12}"), None);
        assert_eq!(sent_us(b"{}"), None);
    }

    #[test]
    fn a_template_without_places_is_itself() {
        let text = "{\"a\":{\"b\":1}}";
        let payload = Template::new(text).render(3);
        assert_eq!((payload.text.as_str(), payload.patches.len()), (text, 0));
        assert!(Template::new("{connection}").is_own());
    }
}
