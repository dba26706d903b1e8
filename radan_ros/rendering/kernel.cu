// Depth and colour of triangle meshes, all faces in one z-buffer: `rasterise`, then `resolve`.
//
// The arithmetic is that of cpu.py, operation by operation (compile without contraction to fused multiply-adds), so that both give
// the same pictures. Vertices are snapped to 1/4096 pixel; the edge functions are then integers held in doubles. A key is the depth
// in an unsigned code that sorts as the number does, above the number of the triangle over all faces: the smallest key is the
// nearest depth, and of equal depths the lowest triangle, in whatever order the threads come.
//
// The test suite compiles this file with a C++ compiler too: plain C++ and the names of the CUDA language only.

#define SUBPIXELS 4096
#define LIMIT 16777216.0f          // pixels; float32 cannot tell neighbouring pixels apart beyond
#define LARGEST 3.402823466e+38f   // the largest finite float32
#define EMPTY 0xFFFFFFFFFFFFFFFFull

struct Corner {
    double x, y, z;     // snapped x and y in grid steps; depth
    int column, row;    // first pixel centre at or after the corner, cut to the image
};

// False when the vertex is not finite or too far away to be placed.
__device__ static bool load_corner(const float *vertex, int width, int height, Corner *corner)
{
    const float x = vertex[0], y = vertex[1], z = vertex[2];
    if (!(fabsf(x) <= LIMIT && fabsf(y) <= LIMIT && fabsf(z) <= LARGEST))
        return false;
    const float snapped_x = rintf(x * (float)SUBPIXELS);
    const float snapped_y = rintf(y * (float)SUBPIXELS);
    float column = ceilf(snapped_x * (1.0f / SUBPIXELS));
    float row = ceilf(snapped_y * (1.0f / SUBPIXELS));
    column = column > (float)width ? (float)width : column;
    row = row > (float)height ? (float)height : row;
    corner->column = column > 0.0f ? (int)column : 0;
    corner->row = row > 0.0f ? (int)row : 0;
    corner->x = (double)snapped_x;
    corner->y = (double)snapped_y;
    corner->z = (double)z;
    return true;
}

__device__ static bool load_triangle(const float *vertices, const int *triangles, int vertex_count, int triangle_count,
                                     int width, int height, unsigned int number, Corner corners[3])
{
    const unsigned int face = number / (unsigned int)triangle_count;
    const int *triangle = triangles + 3 * (size_t)(number % (unsigned int)triangle_count);
    const float *first = vertices + 3 * (size_t)face * (size_t)vertex_count;
    for (int i = 0; i < 3; ++i)
        if (!load_corner(first + 3 * (size_t)triangle[i], width, height, &corners[i]))
            return false;
    return true;
}

// Edge functions at a pixel; e[i] belongs to the edge opposite to corner i, and e[0] + e[1] + e[2] is twice the signed area.
__device__ static void edges_at(const Corner c[3], int column, int row, double e[3])
{
    const double px = (double)column * (double)SUBPIXELS, py = (double)row * (double)SUBPIXELS;
    const double x0 = c[0].x - px, y0 = c[0].y - py;
    const double x1 = c[1].x - px, y1 = c[1].y - py;
    const double x2 = c[2].x - px, y2 = c[2].y - py;
    e[0] = x1 * y2 - x2 * y1;
    e[1] = x2 * y0 - x0 * y2;
    e[2] = x0 * y1 - x1 * y0;
}

// Whether a pixel on an edge belongs to the triangle: when each edge that it is on is a left or a top one.
__device__ static bool on_top_left(const Corner c[3], const double e[3], double area)
{
    const double sign = area > 0.0 ? 1.0 : -1.0;
    for (int i = 0; i < 3; ++i) {
        if (e[i] != 0.0)
            continue;
        const Corner &from = c[(i + 1) % 3], &to = c[(i + 2) % 3];
        if (!(sign * (from.y - to.y) > 0.0 || (from.y == to.y && sign * (to.x - from.x) > 0.0)))
            return false;
    }
    return true;
}

__device__ static float depth_at(const Corner c[3], double w1, double w2)
{
    return (float)(c[0].z + w1 * (c[1].z - c[0].z) + w2 * (c[2].z - c[0].z));
}

__device__ static unsigned long long key_of(float depth, unsigned int number)
{
    unsigned int bits = __float_as_uint(depth + 0.0f);  // + 0 makes -0 and 0 one depth
    bits = (bits & 0x80000000u) ? ~bits : (bits | 0x80000000u);
    return ((unsigned long long)bits << 32) | number;
}

// One thread per triangle of each face. keys: height * width, EMPTY before.
extern "C" __global__ void rasterise(const float *vertices, const int *triangles, int face_count, int vertex_count,
                                     int triangle_count, int width, int height, unsigned long long *keys)
{
    const unsigned int number = blockIdx.x * blockDim.x + threadIdx.x;
    if (number >= (unsigned int)face_count * (unsigned int)triangle_count)
        return;
    Corner c[3];
    if (!load_triangle(vertices, triangles, vertex_count, triangle_count, width, height, number, c))
        return;
    int left = c[0].column, right = c[0].column, top = c[0].row, bottom = c[0].row;
    for (int i = 1; i < 3; ++i) {
        left = c[i].column < left ? c[i].column : left;
        right = c[i].column > right ? c[i].column : right;
        top = c[i].row < top ? c[i].row : top;
        bottom = c[i].row > bottom ? c[i].row : bottom;
    }
    if (left == right || top == bottom)
        return;
    double e[3], right_by[3], down_by[3];
    edges_at(c, left, top, e);
    for (int i = 0; i < 3; ++i) {
        const Corner &from = c[(i + 1) % 3], &to = c[(i + 2) % 3];
        right_by[i] = (from.y - to.y) * (double)SUBPIXELS;
        down_by[i] = (to.x - from.x) * (double)SUBPIXELS;
    }
    for (int row = top; row < bottom; ++row) {
        for (int column = left; column < right; ++column) {
            double f[3];
            for (int i = 0; i < 3; ++i)
                f[i] = e[i] + down_by[i] * (double)(row - top) + right_by[i] * (double)(column - left);
            const bool positive = f[0] >= 0.0 && f[1] >= 0.0 && f[2] >= 0.0;
            const bool negative = f[0] <= 0.0 && f[1] <= 0.0 && f[2] <= 0.0;
            if (!positive && !negative)
                continue;
            edges_at(c, column, row, f);
            const double area = f[0] + f[1] + f[2];
            if (area == 0.0)
                continue;
            if ((f[0] == 0.0 || f[1] == 0.0 || f[2] == 0.0) && !on_top_left(c, f, area))
                continue;
            const double inverse = 1.0 / area;
            const unsigned long long key = key_of(depth_at(c, f[1] * inverse, f[2] * inverse), number);
            unsigned long long *place = keys + (size_t)row * (size_t)width + (size_t)column;
            if (key < *place)  // keys only fall, so a stale value costs an atomic at most
                atomicMin(place, key);
        }
    }
}

// One thread per pixel. depth: height * width, NaN where empty. colour, when wanted: height * width * 3, 0 where empty.
extern "C" __global__ void resolve(const float *vertices, const int *triangles, const float *codes, int vertex_count,
                                   int triangle_count, int width, int height, const unsigned long long *keys, float *depth,
                                   int with_colour, unsigned char *colour)
{
    const unsigned int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= (unsigned int)width * (unsigned int)height)
        return;
    const unsigned long long key = keys[pixel];
    Corner c[3];
    const unsigned int number = (unsigned int)(key & 0xFFFFFFFFull);
    if (key == EMPTY || !load_triangle(vertices, triangles, vertex_count, triangle_count, width, height, number, c)) {
        depth[pixel] = __uint_as_float(0x7FC00000u);
        if (with_colour)
            colour[3 * (size_t)pixel] = colour[3 * (size_t)pixel + 1] = colour[3 * (size_t)pixel + 2] = 0;
        return;
    }
    double e[3];
    edges_at(c, (int)(pixel % (unsigned int)width), (int)(pixel / (unsigned int)width), e);
    const double inverse = 1.0 / (e[0] + e[1] + e[2]);
    const double w1 = e[1] * inverse, w2 = e[2] * inverse;
    depth[pixel] = depth_at(c, w1, w2);
    if (!with_colour)
        return;
    const int *triangle = triangles + 3 * (size_t)(number % (unsigned int)triangle_count);
    const float f1 = (float)w1, f2 = (float)w2;
    for (int i = 0; i < 3; ++i) {
        const float c0 = codes[3 * (size_t)triangle[0] + i];
        const float c1 = codes[3 * (size_t)triangle[1] + i];
        const float c2 = codes[3 * (size_t)triangle[2] + i];
        float value = c0 + f1 * (c1 - c0) + f2 * (c2 - c0);
        value = value > 0.0f ? value : 0.0f;
        value = value < 255.0f ? value : 255.0f;
        colour[3 * (size_t)pixel + i] = (unsigned char)(int)value;
    }
}
