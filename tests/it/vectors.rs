//! The worked example of `docs/protocol.md`: every value in its table is computed again.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use opmesh_core::diff::{encode_entries, encode_ids};
use opmesh_core::model::{
    ChainEntry, FlowId, Incarnation, Modno, OpId, Operation, OwnerHasher, Position, PublicKey, Record,
    SetDigest,
};

#[test]
fn the_worked_example_of_the_protocol_page_is_what_this_program_computes() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    let page = fs::read_to_string(page).unwrap();
    let example = example();
    assert!(page.contains(&example), "docs/protocol.md should contain:\n{example}");
}

/// The rows of the table, as they are written.
fn example() -> String {
    let owner = PublicKey([1; 32]);
    let hasher = OwnerHasher::new(&owner);
    let first = operation(1, 7, 1, b"\x12\x01r\x1a\x01p");
    let second = operation(2, 7, 2, b"\x12\x01r\x1a\x01p\x20\x03");
    let (one, two) = (hasher.row(&first), hasher.row(&second));
    let mut set = SetDigest::EMPTY;
    set.add(one);
    set.add(two);
    let incarnation = Incarnation::new(5).unwrap();
    let step = |from: Position, modno, id, entry| {
        from.advance(incarnation, Modno::new(modno).unwrap(), OpId::new(id).unwrap(), entry)
    };
    let at_1 = step(Position::ZERO, 1, 1, ChainEntry::Stored(one));
    let at_2 = step(at_1, 2, 2, ChainEntry::Stored(two));
    let at_3 = step(at_2, 3, 1, ChainEntry::Deleted);
    let entries: Vec<_> = [(3, 7), (4, 2), (300, 900)]
        .map(|(id, modno)| (OpId::new(id).unwrap(), Modno::new(modno).unwrap()))
        .to_vec();
    let ids: Vec<_> = entries.iter().map(|(id, _)| *id).collect();

    let mut rows = String::new();
    let mut row = |what: &str, value: String| writeln!(rows, "| {what} | `{value}` |").unwrap();
    row("key ID of the owner", owner.key_id().to_string());
    row("record of operation 1", hex(first.record.as_bytes()));
    row("record of operation 2", hex(second.record.as_bytes()));
    row("row hash of operation 1: id 1, flow id 7, modno 1", hex(&one.0));
    row("row hash of operation 2: id 2, flow id 7, modno 2", hex(&two.0));
    row("digest of both, count 2", set.to_string());
    row("chain at 1, incarnation 5: operation 1 created", at_1.chain.to_string());
    row("chain at 2: operation 2 created", at_2.chain.to_string());
    row("chain at 3: operation 1 deleted", at_3.chain.to_string());
    row("manifest entries (3, 7) (4, 2) (300, 900), lo 1", hex(&encode_entries(1, &entries)));
    row("ids 3 4 300", hex(&encode_ids(&ids)));
    rows
}

fn operation(id: u64, flow_id: u64, modno: u64, record: &[u8]) -> Operation {
    Operation {
        id: OpId::new(id).unwrap(),
        flow_id: FlowId::new(flow_id).unwrap(),
        modno: Modno::new(modno).unwrap(),
        record: Record::parse(record.to_vec()).unwrap(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
