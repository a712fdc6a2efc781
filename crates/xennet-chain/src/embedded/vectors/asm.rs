//! The way Bitcoin Core's vectors write scripts.

use bitcoin::ScriptBuf;
use bitcoin::hex::FromHex as _;
use bitcoin::script::Builder;

/// The names of the opcodes from 0x61 on.
const NAMES: &str = "NOP VER IF NOTIF VERIF VERNOTIF ELSE ENDIF VERIFY RETURN TOALTSTACK FROMALTSTACK 2DROP 2DUP 3DUP 2OVER 2ROT 2SWAP \
    IFDUP DEPTH DROP DUP NIP OVER PICK ROLL ROT SWAP TUCK CAT SUBSTR LEFT RIGHT SIZE INVERT AND OR XOR EQUAL EQUALVERIFY RESERVED1 \
    RESERVED2 1ADD 1SUB 2MUL 2DIV NEGATE ABS NOT 0NOTEQUAL ADD SUB MUL DIV MOD LSHIFT RSHIFT BOOLAND BOOLOR NUMEQUAL NUMEQUALVERIFY \
    NUMNOTEQUAL LESSTHAN GREATERTHAN LESSTHANOREQUAL GREATERTHANOREQUAL MIN MAX WITHIN RIPEMD160 SHA1 SHA256 HASH160 HASH256 \
    CODESEPARATOR CHECKSIG CHECKSIGVERIFY CHECKMULTISIG CHECKMULTISIGVERIFY NOP1 CHECKLOCKTIMEVERIFY CHECKSEQUENCEVERIFY NOP4 NOP5 NOP6 \
    NOP7 NOP8 NOP9 NOP10 CHECKSIGADD";
const FIRST: u8 = 0x61;

/// Numbers are pushed, `0x…` are bytes of the script itself, `'…'` is pushed, all else are opcodes with or without `OP_`.
pub fn script(text: &str) -> ScriptBuf {
    let mut bytes = Vec::new();
    for word in text.split_whitespace() {
        if let Ok(number) = word.parse::<i64>() {
            bytes.extend(Builder::new().push_int(number).into_bytes());
        } else if let Some(hex) = word.strip_prefix("0x") {
            bytes.extend(Vec::from_hex(hex).unwrap());
        } else if let Some(data) = word.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
            let data = <&bitcoin::script::PushBytes>::try_from(data.as_bytes()).unwrap();
            bytes.extend(Builder::new().push_slice(data).into_bytes());
        } else {
            bytes.push(opcode(word.strip_prefix("OP_").unwrap_or(word)));
        }
    }
    bytes.into()
}

fn opcode(name: &str) -> u8 {
    let at = NAMES.split_whitespace().position(|known| known == name);
    match (name, at) {
        ("RESERVED", _) => 0x50,
        (_, Some(at)) => FIRST + u8::try_from(at).unwrap(),
        (_, None) => panic!("{name} is no opcode"),
    }
}

#[test]
fn names_stand_where_their_opcodes_are() {
    use bitcoin::opcodes::all::{OP_CHECKMULTISIGVERIFY, OP_CHECKSIGADD, OP_CLTV, OP_NOP, OP_RETURN, OP_SHA256};
    let known = [
        ("NOP", OP_NOP),
        ("RETURN", OP_RETURN),
        ("SHA256", OP_SHA256),
        ("CHECKMULTISIGVERIFY", OP_CHECKMULTISIGVERIFY),
        ("CHECKLOCKTIMEVERIFY", OP_CLTV),
        ("CHECKSIGADD", OP_CHECKSIGADD),
    ];
    for (name, code) in known {
        assert_eq!(opcode(name), code.to_u8(), "{name}");
    }
}
