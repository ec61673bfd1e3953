// Stops TensorFlow's libjpeg from printing to stderr about broken pictures. Its lines ("Improper
// call to JPEG library in state 201") name no file, and Convoy names each picture that it cannot
// read.

#include <cstdio>
#include <string>
#include <string_view>
#include <unistd.h>

namespace convoy {
namespace {

#ifdef __GLIBC__

// First words of the messages that can come from reading a JPEG (libjpeg-turbo's jerror.h).
constexpr std::string_view kMessages[] = {
    "Corrupt JPEG data: ", "Premature end of ", "Improper call to JPEG library",
    "Invalid JPEG file structure: ", "Invalid SOS parameters", "Invalid progressive parameters",
    "Invalid component ID ", "Invalid crop request", "Inconsistent progression sequence",
    "Input file read error", "Empty JPEG image", "Empty input file", "Unsupported JPEG ",
    "Unsupported marker type 0x", "Unsupported color conversion request",
    "Unknown Adobe color transform code", "Huffman table 0x", "Huffman code size table overflow",
    "Missing Huffman code table entry", "Quantization table 0x", "Arithmetic table 0x",
    "Sorry, arithmetic coding is not", "Not a JPEG file: ", "JPEG datastream contains no image",
    "Maximum supported image dimension", "Image too wide for this", "Too many color components",
    "Sampling factors too large", "Fractional sampling not", "CCIR601 sampling not",
    "IDCT output block size", "DCT coefficient out of range", "Didn't expect more than one scan",
    "Application transferred too ", "Suspension not allowed here", "Warning: unknown JFIF revision",
    "Bogus Huffman table definition", "Bogus input colorspace", "Bogus JPEG colorspace",
    "Bogus marker length", "Bogus sampling factors", "Bogus DAC ", "Bogus DHT index ",
    "Bogus DQT index ", "Bogus virtual array access", "Bogus buffer control mode",
    "Insufficient memory (case ", "Not implemented yet", "Requested feature was omitted"};

bool IsOfLibjpeg(std::string_view text) {
  for (const std::string_view message : kMessages) {
    if (text.substr(0, message.size()) == message) return true;
  }
  return false;
}

// This thread's first message since the last request: later ones often follow from it.
thread_local std::string said;

ssize_t Write(void*, const char* data, size_t size) {
  if (IsOfLibjpeg({data, size})) {
    if (said.empty()) said.assign(data, size);
    return size;
  }
  size_t written = 0;
  while (written < size) {
    const ssize_t part = write(STDERR_FILENO, data + written, size - written);
    if (part <= 0) break;
    written += part;
  }
  return written;
}

#endif

}  // namespace
}  // namespace convoy

// Replaces C's stderr by a stream that filters these messages and passes everything else on at
// once. Python's own sys.stderr, and writes to the descriptor, do not go through it.
extern "C" __attribute__((visibility("default"))) void convoy_hush_libjpeg() {
#ifdef __GLIBC__
  static FILE* const hushed = [] {
    FILE* const stream = fopencookie(nullptr, "w", {nullptr, convoy::Write, nullptr, nullptr});
    if (stream != nullptr) setvbuf(stream, nullptr, _IONBF, 0);
    return stream;
  }();
  if (hushed != nullptr) stderr = hushed;
#endif
}

// Returns libjpeg's message in this thread since the last call. Read it before the next call.
extern "C" __attribute__((visibility("default"))) const char* convoy_libjpeg_said() {
#ifdef __GLIBC__
  thread_local std::string given;
  given.swap(convoy::said);
  convoy::said.clear();
  return given.c_str();
#else
  return "";
#endif
}
