//! Wall-clock instants between `berth_types::Timestamp` and the protobuf `Timestamp`.

use berth_types::Timestamp;
use protobuf::MessageField;
use protobuf::well_known_types::timestamp::Timestamp as Wire;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

pub fn into_wire(at: Timestamp) -> MessageField<Wire> {
    let nanos = i32::try_from(at.0.rem_euclid(NANOS_PER_SECOND)).unwrap_or_default();
    MessageField::some(Wire { seconds: at.unix_seconds(), nanos, ..Default::default() })
}

/// A missing or out-of-range instant is the Unix epoch.
pub fn from_wire(wire: &MessageField<Wire>) -> Timestamp {
    let nanos = wire.as_ref().and_then(|w| w.seconds.checked_mul(NANOS_PER_SECOND)?.checked_add(i64::from(w.nanos)));
    Timestamp(nanos.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for nanos in [0, 1, -1, 1_764_000_000_123_456_789] {
            assert_eq!(from_wire(&into_wire(Timestamp(nanos))), Timestamp(nanos));
        }
        assert_eq!(from_wire(&MessageField::none()), Timestamp(0));
    }
}
