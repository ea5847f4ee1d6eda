//! Spans, sizes and moments as an operator reads them.

use std::time::Duration;

use opmesh_core::model::UnixMs;

/// `3 s`, `12 min`, `1 h 5 min`, `3 d`; below a second in ms.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..120 => format!("{seconds} s"),
        120..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `512 B`, `3.4 KiB`, `1.0 MiB`, `12.0 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const KIB: u64 = 1024;
    let (unit, name) = match bytes {
        ..KIB => return format!("{bytes} B"),
        KIB..0x10_0000 => (KIB, "KiB"),
        0x10_0000..0x4000_0000 => (0x10_0000, "MiB"),
        0x4000_0000.. => (0x4000_0000, "GiB"),
    };
    let tenths = bytes.saturating_mul(10) / unit;
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// How long before `now` something was.
pub(super) fn ago(at: UnixMs, now: UnixMs) -> String {
    if at > now {
        return format!("{} from now", span(Duration::from_millis(at.since(now))));
    }
    format!("{} ago", span(Duration::from_millis(now.since(at))))
}

/// Words with commas between them.
pub(super) fn list<T: ToString>(words: &[T]) -> String {
    words.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_say_them() {
        let of = |seconds| span(Duration::from_secs(seconds));
        assert_eq!([of(0), of(30), of(119)], ["0 ms", "30 s", "119 s"]);
        assert_eq!([of(600), of(3_660), of(7 * 86_400)], ["10 min", "1 h 1 min", "7 d"]);
        assert_eq!(
            [bytes(12), bytes(1536), bytes(1024 * 1024), bytes(5 << 30)],
            ["12 B", "1.5 KiB", "1.0 MiB", "5.0 GiB"]
        );
        assert_eq!(ago(UnixMs(0), UnixMs(60_000)), "60 s ago");
        assert_eq!(ago(UnixMs(60_000), UnixMs(0)), "60 s from now");
    }
}
