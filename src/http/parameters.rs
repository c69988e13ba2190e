//! The parameters of an address: `?name=value&…`, each known, given once, and in its range.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;

use super::api::{DEVICES_PER_PAGE_DEFAULT, DEVICES_PER_PAGE_MAX};
use super::refused::{Code, Refused};
use crate::identity::Page;

/// The parameters of one request, still percent-encoded; each is taken out, and none may be left.
pub(super) struct Parameters(Vec<(String, String)>);

/// A path with one variable part, percent-decoded.
pub(super) type RawPath = Result<Path<String>, PathRejection>;

/// The device that the path names.
pub(super) fn device_in(path: RawPath) -> Result<String, Refused> {
    named_in(path, "device")
}

/// What the path names: a `device`, an `app`.
pub(super) fn named_in(path: RawPath, what: &str) -> Result<String, Refused> {
    let Path(name) = path.map_err(|_| {
        let message = format!("the {what} in the address is not percent-encoded UTF-8");
        Refused::new(Code::BadParameter, message).target(what)
    })?;
    Ok(name)
}

/// Which part of a list is asked for: `after` and `limit`, and nothing else.
pub(super) fn page_of(mut parameters: Parameters) -> Result<Page, Refused> {
    let after = parameters.text("after")?;
    let limit = parameters.number("limit", 1..=DEVICES_PER_PAGE_MAX)?;
    parameters.finish(&["after", "limit"])?;
    let limit = limit.unwrap_or(DEVICES_PER_PAGE_DEFAULT);
    Ok(Page { after, limit })
}

impl Parameters {
    /// Takes the part of the address behind the question mark.
    pub(super) fn new(query: Option<&str>) -> Result<Parameters, Refused> {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        let split = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, value.to_owned()))
        };
        Ok(Parameters(
            pairs.map(split).collect::<Result<_, Refused>>()?,
        ))
    }

    /// Every value of a parameter that may be given more than once.
    pub(super) fn repeated(&mut self, name: &str) -> Result<Vec<String>, Refused> {
        let mut values = Vec::new();
        while let Some(place) = self.0.iter().position(|(known, _)| known == name) {
            values.push(decoded(&self.0.remove(place).1)?);
        }
        Ok(values)
    }

    /// The text of a parameter, if it is there.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Refused> {
        self.take(name)?.map(|value| decoded(&value)).transpose()
    }

    /// The texts of a list, if it is there: separated by commas; a comma inside one is `%2C`.
    pub(super) fn list(&mut self, name: &str) -> Result<Option<Vec<String>>, Refused> {
        let value = self.take(name)?;
        value
            .map(|value| value.split(',').map(decoded).collect())
            .transpose()
    }

    fn take(&mut self, name: &str) -> Result<Option<String>, Refused> {
        let Some(place) = self.0.iter().position(|(known, _)| known == name) else {
            return Ok(None);
        };
        let (_, value) = self.0.swap_remove(place);
        if self.0.iter().any(|(known, _)| known == name) {
            return Err(bad(name, "is given more than once"));
        }
        Ok(Some(value))
    }

    /// A whole number within its range, if it is there.
    pub(super) fn number<T>(
        &mut self,
        name: &str,
        range: RangeInclusive<T>,
    ) -> Result<Option<T>, Refused>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match text.parse::<T>() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let (least, most) = (range.start(), range.end());
                Err(bad(
                    name,
                    &format!("must be a whole number from {least} to {most}"),
                ))
            }
        }
    }

    /// Whether a parameter is set: `true`; `false` is as if it were not there.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Refused> {
        match self.text(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(bad(name, "must be true or false")),
        }
    }

    /// Refuses what nobody asked for: a misspelt parameter must not be without effect.
    pub(super) fn finish(self, known: &[&str]) -> Result<(), Refused> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => {
                let known = match known {
                    [] => "this takes none".to_owned(),
                    _ => format!("known are: {}", known.join(", ")),
                };
                Err(bad(&name, &format!("is unknown; {known}")))
            }
        }
    }
}

/// A refusal that names the parameter.
pub(super) fn bad(name: &str, what: &str) -> Refused {
    let message = format!("the parameter `{name}` {what}");
    Refused::new(Code::BadParameter, message).target(name)
}

/// Undoes the encoding of a form: `%XX` and `+`.
pub(super) fn decoded(text: &str) -> Result<String, Refused> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let value = digit().zip(digit()).map(|(high, low)| high * 16 + low);
                value
                    .and_then(|value| u8::try_from(value).ok())
                    .ok_or_else(garbled)?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| garbled())
}

fn garbled() -> Refused {
    Refused::new(
        Code::BadParameter,
        "the parameters are not percent-encoded UTF-8",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(query: &str) -> Parameters {
        Parameters::new(Some(query)).unwrap()
    }

    #[test]
    fn a_parameter_out_of_its_range_is_named() {
        for value in ["0", "11", "x", "", "1.0", "+1", "99999999999999999999"] {
            let mut parameters = parameters(&format!("limit={value}"));
            let refused = parameters.number("limit", 1..=10_u32).unwrap_err();
            assert_eq!(refused.code, Code::BadParameter);
            assert_eq!(refused.target.as_deref(), Some("limit"));
            assert!(
                refused.message.contains("from 1 to 10"),
                "{}",
                refused.message
            );
        }
        assert_eq!(
            parameters("a&limit=10")
                .number("limit", 1..=10_u32)
                .unwrap(),
            Some(10)
        );
        assert_eq!(parameters("").number("limit", 1..=10_u32).unwrap(), None);
    }

    #[test]
    fn an_unknown_or_doubled_parameter_is_refused() {
        let refused = parameters("limt=1").finish(&["limit"]).unwrap_err();
        assert_eq!(
            refused.message,
            "the parameter `limt` is unknown; known are: limit"
        );
        let mut twice = parameters("limit=1&limit=2");
        assert_eq!(
            twice.text("limit").unwrap_err().target.as_deref(),
            Some("limit")
        );
    }

    #[test]
    fn parameters_are_decoded_after_they_are_split() {
        let mut parsed = parameters("&keys=a%2Cb,c+d,%C3%A9,&%61=%3D");
        let keys = parsed.list("keys").unwrap().unwrap();
        assert_eq!(keys, ["a,b", "c d", "é", ""]);
        assert_eq!(parsed.text("a").unwrap().as_deref(), Some("="));
        for garbled in ["a=%", "a=%1", "a=%zz", "a=%FF", "a=%+1"] {
            let refused = parameters(garbled).text("a").unwrap_err();
            assert_eq!(refused.code, Code::BadParameter, "{garbled}");
        }
    }
}
