// The soft mask of an image in the browser: its levels, regions and picture, and the mask as a PNG file.

export const COLOR = [255, 212, 0]; // that of the overlays of `predict`

/** The picture of a data URL. */
export async function decode(url) {
  const picture = new Image();
  picture.src = url;
  await picture.decode();
  return picture;
}

/** {width, height, levels}: a level from 0 to 255 for each pixel of a grey PNG in a data URL. */
export async function readMask(url) {
  const picture = await decode(url);
  const width = picture.naturalWidth, height = picture.naturalHeight;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const levels = new Uint8Array(width * height);
  for (let i = 0; i < levels.length; i++) levels[i] = rgba[4 * i];
  return { width, height, levels };
}

/** The minimum level that counts as foreground: a mask is at least t where its level is at least 255 t. */
export function minLevel(threshold) {
  return Math.ceil(255 * threshold - 1e-6);
}

/** {pixels, instances} of the foreground; instances touch by edges or corners and have at least minArea pixels. */
export function measure({ width, height, levels }, threshold, minArea) {
  const minimum = minLevel(threshold), done = new Uint8Array(levels.length), stack = new Int32Array(levels.length);
  let pixels = 0, instances = 0;
  for (let start = 0; start < levels.length; start++) {
    if (levels[start] < minimum || done[start]) continue;
    let top = 0, area = 0;
    stack[top++] = start;
    done[start] = 1;
    while (top) {
      const i = stack[--top], x = i % width, y = (i - x) / width;
      area++;
      for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++) {
        for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u++) {
          const j = v * width + u;
          if (levels[j] >= minimum && !done[j]) {
            done[j] = 1;
            stack[top++] = j;
          }
        }
      }
    }
    pixels += area;
    instances += area >= minArea;
  }
  return { pixels, instances };
}

/** The mask at another size, as levels; bilinear between the centres of pixels. */
export function resize({ width, height, levels }, toWidth, toHeight) {
  const resized = new Float32Array(toWidth * toHeight);
  const places = (from, to) => Array.from({ length: to }, (_, i) => {
    const place = Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1), first = Math.floor(place);
    return [first, Math.min(first + 1, from - 1), place - first];
  });
  const columns = places(width, toWidth);
  places(height, toHeight).forEach(([y0, y1, b], row) => {
    columns.forEach(([x0, x1, a], column) => {
      const upper = levels[y0 * width + x0] * (1 - a) + levels[y0 * width + x1] * a;
      const lower = levels[y1 * width + x0] * (1 - a) + levels[y1 * width + x1] * a;
      resized[row * toWidth + column] = upper * (1 - b) + lower * b;
    });
  });
  return { width: toWidth, height: toHeight, levels: resized };
}

/** An ImageData of the size of `mask`: a tint of the foreground or of the soft mask, and an outline with a dark rim. */
export function paint({ width, height, levels }, { threshold, opacity, layer, outline, lineWidth }) {
  const picture = new ImageData(width, height), rgba = picture.data, level = 255 * threshold - 1e-6;
  const reach = Math.max(1, Math.round(lineWidth)), stride = width + 2 * reach;
  const inside = new Uint8Array(stride * (height + 2 * reach)); // with a margin of background around it
  const place = (x, y) => (y + reach) * stride + x + reach;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) inside[place(x, y)] = levels[i] >= level;
  }
  const crosses = (j, far) => {
    const here = inside[j];
    return inside[j - far] !== here || inside[j + far] !== here || inside[j - far * stride] !== here || inside[j + far * stride] !== here;
  };
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const j = place(x, y), isRim = outline && !inside[j] && crosses(j, 1);
      if (!isRim) [rgba[4 * i], rgba[4 * i + 1], rgba[4 * i + 2]] = COLOR;
      if (isRim) rgba[4 * i + 3] = 153;
      else if (outline && inside[j] && crosses(j, reach)) rgba[4 * i + 3] = 255;
      else rgba[4 * i + 3] = opacity * (layer === "soft" ? levels[i] : 255 * inside[j]);
    }
  }
  return picture;
}

/** The foreground as a PNG file, 8 bits of grey: 255 and 0. */
export async function encode({ width, height, levels }, threshold) {
  const minimum = minLevel(threshold), rows = new Uint8Array(height * (width + 1)); // each begins with its filter, 0
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) rows[y * (width + 1) + x + 1] = levels[y * width + x] >= minimum ? 255 : 0;
  }
  const deflated = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8);
  const chunks = [["IHDR", header.buffer], ["IDAT", await new Response(deflated).arrayBuffer()], ["IEND", new ArrayBuffer(0)]];
  return new Blob([new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]), ...chunks.map(makeChunk)], { type: "image/png" });
}

function makeChunk([name, content]) {
  const chunk = new Uint8Array(12 + content.byteLength), view = new DataView(chunk.buffer);
  view.setUint32(0, content.byteLength);
  chunk.set([...name].map((letter) => letter.charCodeAt(0)), 4);
  chunk.set(new Uint8Array(content), 8);
  view.setUint32(8 + content.byteLength, checksum(chunk.subarray(4, 8 + content.byteLength)));
  return chunk;
}

/** CRC-32 as in PNG. */
function checksum(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
