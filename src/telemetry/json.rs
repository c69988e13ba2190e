//! The lenient JSON reader (TB-20): tokens and structure, no meaning.
//!
//! Accepted beside strict JSON: names and strings without quotes or in single quotes; comments
//! `// …`, `# …` and `/* … */`; `;` for `,`; `=` or `=>` for `:`; `true`, `false` and `null` in
//! any case; as in the reference also raw control characters in strings, a byte order mark at the
//! start, and a missing array element, which is `null`. A text without quotes ends at a blank or
//! at one of ``/ \ ; # = { } [ ] : ,``; what is no keyword and no strict number there is a string.
//!
//! Nothing here recurses, allocates or copies: containers are told apart by one bit a level.

use super::error::PayloadError;
use super::number;

/// Most arrays and objects in each other (SEC-01). One bit of a `u64` a level; beyond it the
/// payload is bad.
pub(super) const DEPTH_MAX: u32 = 64;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number,
    /// A string that stands in the payload as it is.
    Text,
    /// A string with backslashes in it.
    EscapedText,
    Object,
    Array,
}

/// A token and where it stands: strings without their quotes, containers with their brackets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    /// The token's bytes in the text it was read from.
    pub(super) fn raw<'a>(&self, text: &'a str) -> &'a str {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

/// Told of what [`Scanner::walk`] meets, in order.
pub(super) trait Events {
    fn open(&mut self, _object: bool) {}
    fn close(&mut self, _object: bool) {}
    fn name(&mut self, _name: Token) {}
    fn scalar(&mut self, _value: Token) {}
}

/// For skipping a value.
impl Events for () {}

/// Reads a document from front to back.
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let at = if text.starts_with('\u{feff}') {
            '\u{feff}'.len_utf8()
        } else {
            0
        };
        Self {
            bytes: text.as_bytes(),
            at,
        }
    }

    /// A scanner that begins at a token read before.
    pub(super) fn at(text: &'a str, token: Token) -> Self {
        Self {
            bytes: text.as_bytes(),
            at: token.start,
        }
    }

    /// Where the next byte stands.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Takes the byte that [`Self::next_byte`] has shown.
    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    /// The next byte that belongs to the document, behind blanks and comments; it is not taken.
    #[inline]
    pub(super) fn next_byte(&mut self) -> Result<Option<u8>, PayloadError> {
        match self.peek(0) {
            Some(b' ' | b'\n' | b'\r' | b'\t' | b'#' | b'/') => self.next_byte_behind_blanks(),
            found => Ok(found),
        }
    }

    /// The next name of an object and the sign behind it; `None` when the object ends here.
    /// `first`: nothing was read since its opening bracket.
    #[inline]
    pub(super) fn next_name(&mut self, first: bool) -> Result<Option<Token>, PayloadError> {
        if !self.next_item(first, b'}')? {
            return Ok(None);
        }
        let name = match self.next_byte()? {
            Some(quote @ (b'"' | b'\'')) => self.quoted(quote)?,
            Some(byte) if is_bare(byte) => self.bare(),
            found => return Err(self.unexpected("a name", found)),
        };
        match self.next_byte()? {
            Some(b':') => self.at += 1,
            Some(b'=') if self.peek(1) == Some(b'>') => self.at += 2,
            Some(b'=') => self.at += 1,
            found => return Err(self.unexpected("`:` behind the name", found)),
        }
        Ok(Some(name))
    }

    /// Goes to the next element of an array (`close` is its bracket); false when it ends here.
    #[inline]
    pub(super) fn next_item(&mut self, first: bool, close: u8) -> Result<bool, PayloadError> {
        match self.next_byte()? {
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            Some(b',' | b';') if !first => {
                self.at += 1;
                Ok(true)
            }
            _ if first => Ok(true),
            found => Err(self.unexpected("`,` or the closing bracket", found)),
        }
    }

    /// The value behind a name, as one token. `depth`: the containers around it.
    #[inline]
    pub(super) fn value(&mut self, depth: u32) -> Result<Token, PayloadError> {
        let kind = match self.next_byte()? {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            _ => return self.scalar(),
        };
        let start = self.at;
        self.walk(depth, &mut ())?;
        Ok(Token {
            kind,
            start,
            end: self.at,
        })
    }

    /// Reads one value with all that is in it. `depth`: the containers around it.
    pub(super) fn walk(
        &mut self,
        depth: u32,
        events: &mut impl Events,
    ) -> Result<(), PayloadError> {
        let mut open = 0;
        let mut objects = 0_u64; // the lowest bit: the innermost container is an object
        loop {
            let mut first = false;
            match self.next_byte()? {
                Some(bracket @ (b'{' | b'[')) => {
                    if depth + open >= DEPTH_MAX {
                        return Err(PayloadError::TooDeep { position: self.at });
                    }
                    self.at += 1;
                    open += 1;
                    objects = objects << 1 | u64::from(bracket == b'{');
                    events.open(bracket == b'{');
                    first = true;
                }
                Some(b',' | b';' | b']') if open > 0 && objects & 1 == 0 => {
                    events.scalar(Token {
                        kind: Kind::Null,
                        start: self.at,
                        end: self.at,
                    });
                }
                _ => events.scalar(self.scalar()?),
            }
            while open > 0 {
                let object = objects & 1 == 1;
                if object {
                    if let Some(name) = self.next_name(first)? {
                        events.name(name);
                        break;
                    }
                } else if self.next_item(first, b']')? {
                    break;
                }
                events.close(object);
                open -= 1;
                objects >>= 1;
                first = false;
            }
            if open == 0 {
                return Ok(());
            }
        }
    }

    pub(super) fn unexpected(&self, expected: &'static str, found: Option<u8>) -> PayloadError {
        PayloadError::Unexpected {
            position: self.at,
            expected,
            found,
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    #[inline]
    fn scalar(&mut self) -> Result<Token, PayloadError> {
        match self.next_byte()? {
            Some(quote @ (b'"' | b'\'')) => self.quoted(quote),
            Some(byte) if is_bare(byte) => {
                let token = self.bare();
                let text = self.bytes.get(token.start..token.end).unwrap_or_default();
                Ok(Token {
                    kind: bare_kind(byte, text),
                    ..token
                })
            }
            found => Err(self.unexpected("a value", found)),
        }
    }

    /// A text without quotes, whatever it means. At least one byte was seen to belong to it.
    #[inline]
    fn bare(&mut self) -> Token {
        let start = self.at;
        while self.peek(0).is_some_and(is_bare) {
            self.at += 1;
        }
        Token {
            kind: Kind::Text,
            start,
            end: self.at,
        }
    }

    #[inline]
    fn quoted(&mut self, quote: u8) -> Result<Token, PayloadError> {
        let opening = self.at;
        self.at += 1;
        let start = self.at;
        let mut kind = Kind::Text;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(len) = rest.iter().position(|&byte| byte == quote || byte == b'\\') else {
                return Err(PayloadError::UnterminatedString { position: opening });
            };
            self.at += len;
            if rest.get(len) == Some(&quote) {
                break;
            }
            kind = Kind::EscapedText;
            self.escape()?;
        }
        let end = self.at;
        self.at += 1;
        Ok(Token { kind, start, end })
    }

    /// One backslash and what belongs to it.
    fn escape(&mut self) -> Result<(), PayloadError> {
        let bad = PayloadError::BadEscape { position: self.at };
        let len = match self.peek(1).ok_or(bad)? {
            b'u' => {
                let digits = self.bytes.get(self.at + 2..self.at + 6).ok_or(bad)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(bad);
                }
                6
            }
            byte if simple_escape(byte).is_some() => 2,
            _ => return Err(bad),
        };
        self.at += len;
        Ok(())
    }

    #[inline(never)]
    fn next_byte_behind_blanks(&mut self) -> Result<Option<u8>, PayloadError> {
        loop {
            match self.peek(0) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(b'#') => self.skip_line(),
                Some(b'/') => match self.peek(1) {
                    Some(b'/') => self.skip_line(),
                    Some(b'*') => self.skip_block_comment()?,
                    _ => return Ok(Some(b'/')),
                },
                found => return Ok(found),
            }
        }
    }

    fn skip_line(&mut self) {
        while self
            .peek(0)
            .is_some_and(|byte| byte != b'\n' && byte != b'\r')
        {
            self.at += 1;
        }
    }

    fn skip_block_comment(&mut self) -> Result<(), PayloadError> {
        let position = self.at;
        self.at += 2;
        while self.peek(0) != Some(b'*') || self.peek(1) != Some(b'/') {
            if self.peek(0).is_none() {
                return Err(PayloadError::UnterminatedComment { position });
            }
            self.at += 1;
        }
        self.at += 2;
        Ok(())
    }
}

/// The characters of a string as the escapes mean them. Half of a surrogate pair becomes U+FFFD.
pub(super) fn unescape(raw: &str) -> impl Iterator<Item = char> + '_ {
    let mut rest = raw;
    std::iter::from_fn(move || {
        let mut chars = rest.chars();
        let first = chars.next()?;
        if first != '\\' {
            rest = chars.as_str();
            return Some(first);
        }
        let escaped = chars.next()?;
        rest = chars.as_str();
        if escaped != 'u' {
            return Some(
                u8::try_from(escaped)
                    .ok()
                    .and_then(simple_escape)
                    .unwrap_or(escaped),
            );
        }
        let high = take_hex(&mut rest)?;
        if !(0xd800..0xdc00).contains(&high) {
            return Some(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let mut behind = rest;
        if let Some(after) = behind.strip_prefix("\\u") {
            behind = after;
            if let Some(low @ 0xdc00..0xe000) = take_hex(&mut behind) {
                rest = behind;
                let joined = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return char::from_u32(joined);
            }
        }
        Some(char::REPLACEMENT_CHARACTER)
    })
}

/// Four hexadecimal digits, which the scanner has seen to be there.
fn take_hex(rest: &mut &str) -> Option<u32> {
    let (digits, behind) = rest.split_at_checked(4)?;
    *rest = behind;
    u32::from_str_radix(digits, 16).ok()
}

/// What a backslash before this byte means; `None` if nothing.
fn simple_escape(byte: u8) -> Option<char> {
    Some(match byte {
        b'"' | b'\'' | b'\\' | b'/' | b'\n' => char::from(byte),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        _ => return None,
    })
}

/// What a text without quotes is, told by its first byte where that is possible.
#[inline]
fn bare_kind(first: u8, text: &[u8]) -> Kind {
    match first {
        b'-' | b'0'..=b'9' if number::is_number(text) => Kind::Number,
        b't' | b'T' if text.eq_ignore_ascii_case(b"true") => Kind::Bool(true),
        b'f' | b'F' if text.eq_ignore_ascii_case(b"false") => Kind::Bool(false),
        b'n' | b'N' if text.eq_ignore_ascii_case(b"null") => Kind::Null,
        _ => Kind::Text,
    }
}

/// Whether a byte can stand in a text without quotes; all of UTF-8 beyond ASCII can.
#[inline]
fn is_bare(byte: u8) -> bool {
    BARE.get(usize::from(byte)).copied().unwrap_or(false)
}

/// Answers of [`is_bare`].
static BARE: [bool; 256] = {
    let mut table = [true; 256];
    let ends = b"/\\;#={}[]:, \t\x0c\r\n";
    let mut index = 0;
    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
    while index < ends.len() {
        table[ends[index] as usize] = false;
        index += 1;
    }
    table
};
