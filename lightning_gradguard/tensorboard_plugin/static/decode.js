// Bytes of `history/view.py` become typed arrays. Undoes `pack`.

const KINDS = {f8: Float64Array, f4: Float32Array, u1: Uint8Array};

export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let place = 4 + length;
  for (const [name, kind, shape] of header.arrays) {
    const count = shape.reduce((a, b) => a * b, 1);
    const bytes = count * Number(kind[1]);
    header[name] = kind === "f2"
      ? Float32Array.from(new Uint16Array(buffer, place, count), fromHalf)
      : new KINDS[kind](buffer, place, count);
    header[`${name}Shape`] = shape;
    place += bytes + ((8 - (bytes % 8)) % 8);
  }
  return header;
}

export function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const part = bits & 1023;
  if (exponent === 31) return part ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + part / 1024) : 2 ** -24 * part);
}

export function fromBase64(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes.buffer;
}
