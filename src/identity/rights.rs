//! What a device's token allows on the virtual device topics: rights, and the topics of each.
//!
//! A token without restrictions has them all, and whatever else stands under those topics. One
//! with some of them reaches the topics listed here and no others (SEC-30): what no right is for
//! (claiming, provisioning) stays closed to it.

use std::fmt;

use super::RegistryError;
use crate::mqtt::topic::{Filter, FilterBuf};

/// One right on the device topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To send telemetry.
    Telemetry,
    /// To ask for attributes, and be told when shared ones change; firmware, which they announce.
    AttributesRead,
    /// To send attributes.
    AttributesWrite,
    /// To receive and answer calls, and to make them.
    Rpc,
}

impl Right {
    /// All of them.
    pub const ALL: [Right; 4] = [
        Right::Telemetry,
        Right::AttributesRead,
        Right::AttributesWrite,
        Right::Rpc,
    ];

    /// Its name in the API and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Right::Telemetry => "telemetry",
            Right::AttributesRead => "attributes_read",
            Right::AttributesWrite => "attributes_write",
            Right::Rpc => "rpc",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Right::Telemetry => 1,
            Right::AttributesRead => 2,
            Right::AttributesWrite => 4,
            Right::Rpc => 8,
        }
    }

    /// Where one may publish with it, and what one may receive.
    const fn topics(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Right::Telemetry => (
                &[
                    "v1/devices/me/telemetry",
                    "v2/t",
                    "v2/t/+",
                    "v1/gateway/telemetry",
                    "v1/gateway/connect",
                    "v1/gateway/disconnect",
                ],
                &[],
            ),
            Right::AttributesRead => (
                &[
                    "v1/devices/me/attributes/request/+",
                    "v2/a/req/#",
                    "v1/gateway/attributes/request",
                    "v2/fw/request/#",
                    "v2/sw/request/#",
                ],
                &[
                    "v1/devices/me/attributes",
                    "v1/devices/me/attributes/response/+",
                    "v2/a",
                    "v2/a/j",
                    "v2/a/p",
                    "v2/a/res/#",
                    "v1/gateway/attributes",
                    "v1/gateway/attributes/response",
                    "v2/fw/#",
                    "v2/sw/#",
                ],
            ),
            Right::AttributesWrite => (
                &[
                    "v1/devices/me/attributes",
                    "v2/a",
                    "v2/a/j",
                    "v2/a/p",
                    "v1/gateway/attributes",
                    "v1/gateway/connect",
                    "v1/gateway/disconnect",
                ],
                &[],
            ),
            Right::Rpc => (
                &[
                    "v1/devices/me/rpc/request/+",
                    "v1/devices/me/rpc/response/+",
                    "v2/r/#",
                    "v1/gateway/rpc",
                ],
                &[
                    "v1/devices/me/rpc/request/+",
                    "v1/devices/me/rpc/response/+",
                    "v2/r/#",
                    "v1/gateway/rpc",
                ],
            ),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Several rights, or none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// Every right, and what else stands under the device topics.
    pub const ALL: Rights = Rights(0x0f);

    /// No right.
    pub const NONE: Rights = Rights(0);

    /// How many different ones there are.
    pub(super) const COUNT: usize = 16;

    /// The rights with these names.
    ///
    /// # Errors
    /// A name that is none.
    pub fn named<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Rights, RegistryError> {
        let mut rights = Rights::NONE;
        for name in names {
            let right = Right::ALL.into_iter().find(|right| right.as_str() == name);
            let Some(right) = right else {
                let known = Right::ALL.map(Right::as_str).join(", ");
                let what = format!("has {name:?}, which is no right; there are {known}");
                let field = "rights";
                return Err(RegistryError::Invalid { field, what });
            };
            rights.0 |= right.bit();
        }
        Ok(rights)
    }

    /// Whether `right` is among them.
    #[must_use]
    pub const fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// Those that are among them.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.has(*right))
    }

    /// Whether all of `other` are among them.
    #[must_use]
    pub const fn covers(self, other: Rights) -> bool {
        other.0 & !self.0 == 0
    }

    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    /// Bits that a newer version wrote mean nothing here.
    pub(super) const fn from_bits(bits: u8) -> Rights {
        Rights(bits & Rights::ALL.0)
    }

    /// Filters of what may be published to, and received.
    pub(super) fn filters(self) -> (Vec<FilterBuf>, Vec<FilterBuf>) {
        let filters = |texts: &mut dyn Iterator<Item = &'static str>| -> Vec<FilterBuf> {
            let filter = |text| Filter::new(text).expect("the filters of this file are valid");
            texts.map(|text| filter(text).into()).collect()
        };
        let publish = &mut self.iter().flat_map(|right| right.topics().0).copied();
        let publish = filters(publish);
        let receive = &mut self.iter().flat_map(|right| right.topics().1).copied();
        (publish, filters(receive))
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
