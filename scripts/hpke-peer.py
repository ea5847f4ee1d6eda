"""The other implementation for scripts/hpke-check: seals to a public key from stdin, then opens what was sealed to its own.

Lines of hex: in comes a public key, out go encapsulation and ciphertext, and a public key; in comes what was sealed to
it, out goes the text.
"""

import sys

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

INFO = b"opmesh/hs/1/transport"
ML_KEM_BYTES = 1568

suite = hpke.Suite(hpke.KEM.MLKEM1024_P384, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def read() -> bytes:
    return bytes.fromhex(sys.stdin.readline().strip())


def write(data: bytes) -> None:
    print(data.hex(), flush=True)


public = read()
theirs = hpke.MLKEM1024P384PublicKey(
    mlkem.MLKEM1024PublicKey.from_public_bytes(public[:ML_KEM_BYTES]),
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), public[ML_KEM_BYTES:]),
)
write(suite.encrypt(b"from the other implementation", theirs, INFO))

ml_kem, p384 = mlkem.MLKEM1024PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())
point = p384.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
write(ml_kem.public_key().public_bytes_raw() + point)
write(suite.decrypt(read(), hpke.MLKEM1024P384PrivateKey(ml_kem, p384), INFO))
