// Sixteen floats side by side, each with a sum of its own.
//
// The reference backend is vectorised across tokens, never along a sum: a lane
// adds in the order of the formula, so that results depend neither on the width
// of the machine's vectors nor on what the other lanes compute.
#ifndef MILLRACE_BACKENDS_REFERENCE_LANES_H_
#define MILLRACE_BACKENDS_REFERENCE_LANES_H_

namespace millrace::backends::reference {

inline constexpr int kLanes = 16;

// The compiler splits it for machines with narrower vectors. The alignment is
// said because it would else be another in functions for wider machines.
typedef float Lanes
    __attribute__((vector_size(kLanes * sizeof(float)), aligned(16)));

}  // namespace millrace::backends::reference

#endif  // MILLRACE_BACKENDS_REFERENCE_LANES_H_
