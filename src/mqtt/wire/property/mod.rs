//! The properties of MQTT 5: one table says what each may be and where, one walk obeys it (SEC-11).

mod table;

use std::fmt;

use super::error::WireError;
use super::reader::Reader;
use super::user_property::{Budget, UserProperties};

/// A property by the standard's name (MQTT 5 section 2.2.2.2); its number is its identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the standard's, section 2.2.2.2")]
pub enum Property {
    PayloadFormatIndicator = 0x01,
    MessageExpiryInterval = 0x02,
    ContentType = 0x03,
    ResponseTopic = 0x08,
    CorrelationData = 0x09,
    SubscriptionIdentifier = 0x0B,
    SessionExpiryInterval = 0x11,
    AssignedClientIdentifier = 0x12,
    ServerKeepAlive = 0x13,
    AuthenticationMethod = 0x15,
    AuthenticationData = 0x16,
    RequestProblemInformation = 0x17,
    WillDelayInterval = 0x18,
    RequestResponseInformation = 0x19,
    ResponseInformation = 0x1A,
    ServerReference = 0x1C,
    ReasonString = 0x1F,
    ReceiveMaximum = 0x21,
    TopicAliasMaximum = 0x22,
    TopicAlias = 0x23,
    MaximumQos = 0x24,
    RetainAvailable = 0x25,
    UserProperty = 0x26,
    MaximumPacketSize = 0x27,
    WildcardSubscriptionAvailable = 0x28,
    SubscriptionIdentifierAvailable = 0x29,
    SharedSubscriptionAvailable = 0x2A,
}

impl Property {
    /// The name in the words of the standard, as errors print it.
    #[must_use]
    pub fn name(self) -> &'static str {
        rule(u32::from(self as u8)).map_or("a property", |rule| rule.name)
    }

    /// Whether the standard allows this number as the property's value.
    pub(super) fn admits(self, value: u32) -> bool {
        rule(u32::from(self as u8)).is_some_and(|rule| rule.values.contains(value))
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A property's value as it stood on the wire. User properties are never visited one by one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Byte(u8),
    Two(u16),
    Four(u32),
    Variable(u32),
    Text(&'a str),
    Binary(&'a [u8]),
}

/// Where a block of properties stands: one bit each, for the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(u16);

impl Place {
    pub(super) const CONNECT: Place = Place(1 << 1);
    pub(super) const CONNACK: Place = Place(1 << 2);
    pub(super) const PUBLISH: Place = Place(1 << 3);
    /// PUBACK, PUBREC, PUBREL and PUBCOMP allow the same.
    pub(super) const ACK: Place = Place(1 << 4);
    pub(super) const SUBSCRIBE: Place = Place(1 << 5);
    /// SUBACK and UNSUBACK allow the same.
    pub(super) const SUBACK: Place = Place(1 << 6);
    pub(super) const UNSUBSCRIBE: Place = Place(1 << 7);
    pub(super) const DISCONNECT: Place = Place(1 << 8);
    pub(super) const AUTH: Place = Place(1 << 9);
    pub(super) const WILL: Place = Place(1 << 10);
    const EVERYWHERE: Place = Place(0x07FE);

    const fn or(self, other: Place) -> Place {
        Place(self.0 | other.0)
    }

    const fn holds(self, other: Place) -> bool {
        self.0 & other.0 != 0
    }
}

/// The block of properties that comes next: what stands behind its length.
#[inline]
pub(super) fn block<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    let len = reader.variable("property length")?;
    reader.take(len as usize, "properties")
}

/// Walks over a property block, every property as the table says, up to its end.
///
/// `visit` gets each property but the user properties, which are returned as a list.
///
/// # Errors
/// SEC-11: unknown, not allowed at `place`, repeated, out of range, running over the block's end,
/// or more user properties than `budget` has left.
pub(super) fn walk<'a>(
    block: &'a [u8],
    place: Place,
    budget: &mut Budget,
    mut visit: impl FnMut(Property, Value<'a>) -> Result<(), WireError>,
) -> Result<UserProperties<'a>, WireError> {
    let mut properties = Reader::new(block);
    let mut seen = 0_u64;
    while !properties.is_empty() {
        let identifier = properties.variable("property identifier")?;
        let rule = rule(identifier).ok_or(WireError::UnknownProperty { identifier })?;
        let property = rule.property;
        if !rule.places.holds(place) {
            return Err(WireError::PropertyNotAllowed { property });
        }
        // Identifiers in the table are below 64.
        let bit = 1_u64 << (identifier & 63);
        if seen & bit != 0 && !rule.repeats(place) {
            return Err(WireError::PropertyRepeated { property });
        }
        seen |= bit;
        if let Some(value) = rule.read(&mut properties, budget)? {
            visit(property, value)?;
        }
    }
    Ok(match seen & USER_PROPERTY_BIT {
        0 => UserProperties::default(),
        _ => UserProperties::in_block(block),
    })
}

/// Steps over the properties of a block that was checked, giving each one's bytes.
pub(super) fn next_checked<'a>(reader: &mut Reader<'a>) -> Option<(Property, Reader<'a>)> {
    let identifier = reader.variable("property identifier").ok()?;
    let rule = rule(identifier)?;
    let value = reader.clone();
    rule.skip(reader)?;
    Some((rule.property, value))
}

const USER_PROPERTY_BIT: u64 = 1 << Property::UserProperty as u8;

/// What a property's value looks like on the wire (section 2.2.2.2).
#[derive(Clone, Copy, Debug)]
enum Kind {
    Byte,
    Two,
    Four,
    Variable,
    Text,
    Binary,
    Pair,
}

/// Values a number may have; texts and binary values have no such rule.
#[derive(Clone, Copy, Debug)]
enum Values {
    Any,
    /// 0 or 1.
    Bool,
    NotZero,
}

impl Values {
    const fn contains(self, value: u32) -> bool {
        match self {
            Values::Any => true,
            Values::Bool => value <= 1,
            Values::NotZero => value != 0,
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
struct Rule {
    property: Property,
    name: &'static str,
    kind: Kind,
    values: Values,
    places: Place,
}

impl Rule {
    /// Only user properties repeat, and the subscription identifiers of a PUBLISH [MQTT-3.3.4-4].
    const fn repeats(&self, place: Place) -> bool {
        match self.property {
            Property::UserProperty => true,
            Property::SubscriptionIdentifier => place.holds(Place::PUBLISH),
            _ => false,
        }
    }

    /// Reads and checks the value; `None` for a user property, which the budget has counted.
    fn read<'a>(
        &self,
        reader: &mut Reader<'a>,
        budget: &mut Budget,
    ) -> Result<Option<Value<'a>>, WireError> {
        let (value, number) = match self.kind {
            Kind::Byte => {
                let byte = reader.byte(self.name)?;
                (Value::Byte(byte), u32::from(byte))
            }
            Kind::Two => {
                let two = reader.two(self.name)?;
                (Value::Two(two), u32::from(two))
            }
            Kind::Four => {
                let four = reader.four(self.name)?;
                (Value::Four(four), four)
            }
            Kind::Variable => {
                let variable = reader.variable(self.name)?;
                (Value::Variable(variable), variable)
            }
            Kind::Text => return Ok(Some(Value::Text(reader.text(self.name)?))),
            Kind::Binary => return Ok(Some(Value::Binary(reader.binary(self.name)?))),
            Kind::Pair => {
                let name = reader.text(self.name)?;
                let value = reader.text(self.name)?;
                budget.take(name, value)?;
                return Ok(None);
            }
        };
        if self.values.contains(number) {
            return Ok(Some(value));
        }
        // A zero alias has a reason code of its own [MQTT-3.3.2-8] (SEC-12).
        Err(match self.property {
            Property::TopicAlias => WireError::TopicAliasZero,
            property => WireError::PropertyValue {
                property,
                value: number,
            },
        })
    }

    /// Steps over a value that was checked before; no text is looked at again.
    fn skip(&self, reader: &mut Reader<'_>) -> Option<()> {
        match self.kind {
            Kind::Byte => reader.byte(self.name).map(drop),
            Kind::Two => reader.two(self.name).map(drop),
            Kind::Four => reader.four(self.name).map(drop),
            Kind::Variable => reader.variable(self.name).map(drop),
            Kind::Text | Kind::Binary => reader.binary(self.name).map(drop),
            Kind::Pair => reader
                .binary(self.name)
                .and(reader.binary(self.name))
                .map(drop),
        }
        .ok()
    }
}

#[inline]
fn rule(identifier: u32) -> Option<&'static Rule> {
    let index = usize::try_from(identifier).ok()?;
    table::RULES.get(index)?.as_ref()
}
