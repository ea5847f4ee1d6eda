//! Newtypes for the numbers of the protocol. All of them fit a signed 64-bit integer, the largest that every store
//! and every JSON consumer keeps exactly.

use std::fmt;

/// The largest number that may cross the wire or reach a store: 2⁶³ − 1.
const MAX_NUMBER: u64 = i64::MAX.cast_unsigned();

/// Why a number was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value} is outside {min}..={max}")]
pub struct NumberFault {
    /// Which kind of number it was meant to be.
    pub what: &'static str,
    /// What came.
    pub value: u64,
    /// The smallest valid value.
    pub min: u64,
    /// The largest valid value.
    pub max: u64,
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $what:literal, $min:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// The smallest valid value.
            pub const MIN: Self = Self($min);
            /// The largest valid value.
            pub const MAX: Self = Self($max);

            /// Checks the range.
            pub fn new(value: u64) -> Result<Self, NumberFault> {
                if ($min..=$max).contains(&value) {
                    Ok(Self(value))
                } else {
                    Err(NumberFault { what: $what, value, min: $min, max: $max })
                }
            }

            /// The bare number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The bare number as stores keep it; the range makes it exact.
            pub fn to_i64(self) -> i64 {
                i64::try_from(self.0).unwrap_or(i64::MAX)
            }

            /// From a store's column.
            pub fn from_i64(value: i64) -> Result<Self, NumberFault> {
                // A negative number wraps to one above 2⁶³, which is refused.
                Self::new(value.cast_unsigned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The owner's number for an operation. The largest value is one below 2⁶³ − 1, because an exclusive upper bound
    /// must still be a number.
    OpId, "operation id", 1, MAX_NUMBER - 1
);
number!(
    /// The owner's number for the run that an operation belongs to.
    FlowId, "flow id", 1, MAX_NUMBER
);
number!(
    /// The owner's change counter. Zero is the beginning, before the first change.
    Modno, "modno", 0, MAX_NUMBER
);
number!(
    /// How often an instance's repositories and plans have been changed. Zero: never.
    ConfigModno, "config modno", 0, MAX_NUMBER
);
number!(
    /// Random label of one life of an owner's database.
    Incarnation, "incarnation", 0, MAX_NUMBER
);
number!(
    /// Random label of one run of a process; tells a restart from a clone.
    ProcessNonce, "process nonce", 0, MAX_NUMBER
);

impl Modno {
    /// Before the first change.
    pub const ZERO: Self = Self(0);

    /// The number of the next change.
    pub fn next(self) -> Result<Self, NumberFault> {
        Self::new(self.0.saturating_add(1))
    }
}

impl ConfigModno {
    /// The number after the next effective change.
    pub fn next(self) -> Result<Self, NumberFault> {
        Self::new(self.0.saturating_add(1))
    }
}

impl Default for ConfigModno {
    /// Before the first change.
    fn default() -> Self {
        Self::MIN
    }
}

impl OpId {
    /// The exclusive upper bound that lies above every id, as bounds of ranges are written: 2⁶³ − 1.
    pub const END: u64 = MAX_NUMBER;
}

/// Wall time in milliseconds since 1970-01-01T00:00:00Z. Never orders anything in the protocol; it is shown, and it
/// bounds windows such as the guard's 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMs(pub i64);

impl UnixMs {
    /// Milliseconds from `earlier` to `self`; zero when the clock stepped back.
    pub fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_a_signed_64_bit_integer_are_refused() {
        assert!(OpId::new(0).is_err());
        assert!(OpId::new(MAX_NUMBER).is_err());
        assert!(OpId::new(MAX_NUMBER - 1).is_ok());
        assert!(Modno::new(MAX_NUMBER + 1).is_err());
        assert!(Modno::from_i64(-1).is_err());
        assert_eq!(Modno::MAX.next().unwrap_err().value, MAX_NUMBER + 1);
    }
}
