// The words of the CUDA language that rendering/kernel.cu uses, as plain C++, and a loop over the grid in place of a GPU.
// Build: c++ -O2 -ffp-contract=off -shared -fPIC -DKERNEL='"path/to/kernel.cu"' cuda_on_cpu.cpp -o library
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__

using std::size_t;

struct Index3 { unsigned int x, y, z; };
static Index3 blockIdx, blockDim, threadIdx;

static unsigned int __float_as_uint(float value) { unsigned int bits; std::memcpy(&bits, &value, 4); return bits; }
static float __uint_as_float(unsigned int bits) { float value; std::memcpy(&value, &bits, 4); return value; }

static unsigned long long atomicMin(unsigned long long *place, unsigned long long value)
{
    const unsigned long long old = *place;
    if (value < old)
        *place = value;
    return old;
}

#include KERNEL

// Runs a kernel over a grid; backwards when asked, because a GPU promises no order.
template <typename Kernel>
static void launch(unsigned int threads, unsigned int block, bool backwards, Kernel kernel)
{
    const unsigned int blocks = (threads + block - 1) / block;
    blockDim = {block, 1, 1};
    for (unsigned int i = 0; i < blocks * block; ++i) {
        const unsigned int at = backwards ? blocks * block - 1 - i : i;
        blockIdx = {at / block, 0, 0};
        threadIdx = {at % block, 0, 0};
        kernel();
    }
}

extern "C" void draw(const float *vertices, const int *triangles, const float *codes, int face_count, int vertex_count,
                     int triangle_count, int width, int height, int backwards, unsigned long long *keys, float *depth,
                     unsigned char *colour)
{
    std::memset(keys, 0xFF, sizeof(unsigned long long) * (size_t)width * (size_t)height);
    launch((unsigned int)(face_count * triangle_count), 128, backwards != 0, [&] {
        rasterise(vertices, triangles, face_count, vertex_count, triangle_count, width, height, keys);
    });
    launch((unsigned int)(width * height), 256, backwards != 0, [&] {
        resolve(vertices, triangles, codes, vertex_count, triangle_count, width, height, keys, depth, colour != nullptr, colour);
    });
}
