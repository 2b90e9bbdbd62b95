package attn

import (
	"math"
	"testing"
)

// random gives reproducible values in [-1, 1).
type random uint64

func (r *random) next() float64 {
	// splitmix64
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return float64((z^z>>31)>>11)/(1<<52) - 1
}

type number interface{ float32 | Float16 | BFloat16 }

func narrow[T number](x float64) T {
	var zero T
	switch any(zero).(type) {
	case Float16:
		return any(NewFloat16(float32(x))).(T)
	case BFloat16:
		return any(NewBFloat16(float32(x))).(T)
	}
	return any(float32(x)).(T)
}

func wide[T number](x T) float64 {
	switch x := any(x).(type) {
	case Float16:
		return float64(x.Float32())
	case BFloat16:
		return float64(x.Float32())
	case float32:
		return float64(x)
	}
	panic("no number")
}

func wideAll[T number](values []T) []float64 {
	result := make([]float64, len(values))
	for i, x := range values {
		result[i] = wide(x)
	}
	return result
}

func values[T number](r *random, count int) []T {
	result := make([]T, count)
	for i := range result {
		result[i] = narrow[T](r.next())
	}
	return result
}

// nans gives memory that no test mistakes for a result.
func nans(count int) []float32 {
	result := make([]float32, count)
	for i := range result {
		result[i] = float32(math.NaN())
	}
	return result
}

// problem is a dense one, layout [batch, seqlen, heads, dim].
type problem struct{ batch, seqlenQ, seqlenK, headsQ, headsK, dim, dimV int }

func (p problem) q() []int   { return []int{p.batch, p.seqlenQ, p.headsQ, p.dim} }
func (p problem) k() []int   { return []int{p.batch, p.seqlenK, p.headsK, p.dim} }
func (p problem) v() []int   { return []int{p.batch, p.seqlenK, p.headsK, p.dimV} }
func (p problem) out() []int { return []int{p.batch, p.seqlenQ, p.headsQ, p.dimV} }
func (p problem) lse() []int { return []int{p.batch, p.headsQ, p.seqlenQ} }

func (p problem) qRow(b, h, i int) int  { return (b*p.seqlenQ+i)*p.headsQ + h }
func (p problem) kvRow(b, h, j int) int { return (b*p.seqlenK+j)*p.headsK + h/(p.headsQ/p.headsK) }

func (p problem) desc(dtype DType) *SDPADesc {
	return &SDPADesc{
		QDType: dtype, NumQHeads: int32(p.headsQ), NumKVHeads: int32(p.headsK),
		HeadDimQK: int32(p.dim), HeadDimV: int32(p.dimV), MaxBatch: int64(p.batch),
		MaxSeqlenQ: int64(p.seqlenQ), MaxSeqlenK: int64(p.seqlenK), SoftmaxScale: DefaultScale(p.dim),
	}
}

func size(shape []int) int {
	result := 1
	for _, extent := range shape {
		result *= extent
	}
	return result
}

// score changes a score, or hides the key with -Inf.
type score func(b, h, i, j int, s float64) float64

func full(_, _, _, _ int, s float64) float64 { return s }

// causal is bottom-right.
func (p problem) causal(_, _, i, j int, s float64) float64 {
	if j+p.seqlenQ <= i+p.seqlenK {
		return s
	}
	return math.Inf(-1)
}

type forwardResult struct{ out, lse, weights []float64 }

func (p problem) forward(q, k, v []float64, change score, sink []float32) forwardResult {
	r := forwardResult{
		make([]float64, size(p.out())), make([]float64, size(p.lse())),
		make([]float64, size(p.lse())*p.seqlenK),
	}
	for b := 0; b < p.batch; b++ {
		for h := 0; h < p.headsQ; h++ {
			for i := 0; i < p.seqlenQ; i++ {
				logit := math.Inf(-1)
				if sink != nil {
					logit = float64(sink[h])
				}
				scores, largest := make([]float64, p.seqlenK), logit
				for j := range scores {
					s := 0.0
					for d := 0; d < p.dim; d++ {
						s += q[p.qRow(b, h, i)*p.dim+d] * k[p.kvRow(b, h, j)*p.dim+d]
					}
					scores[j] = change(b, h, i, j, s*float64(DefaultScale(p.dim)))
					largest = math.Max(largest, scores[j])
				}
				row := (b*p.headsQ+h)*p.seqlenQ + i
				if math.IsInf(largest, -1) {
					r.lse[row] = largest
					continue
				}
				keys := 0.0
				for _, s := range scores {
					keys += math.Exp(s - largest)
				}
				total := keys + math.Exp(logit-largest)
				r.lse[row] = largest + math.Log(keys)
				for j, s := range scores {
					weight := math.Exp(s-largest) / total
					r.weights[row*p.seqlenK+j] = weight
					for d := 0; d < p.dimV; d++ {
						r.out[p.qRow(b, h, i)*p.dimV+d] += weight * v[p.kvRow(b, h, j)*p.dimV+d]
					}
				}
			}
		}
	}
	return r
}

// backward gives dq, dk and dv for scores that are scale * q k where visible.
func (p problem) backward(q, k, v []float64, f forwardResult, dout []float64) (dq, dk, dv []float64) {
	dq, dk, dv = make([]float64, len(q)), make([]float64, len(k)), make([]float64, len(v))
	for b := 0; b < p.batch; b++ {
		for h := 0; h < p.headsQ; h++ {
			for i := 0; i < p.seqlenQ; i++ {
				row := p.qRow(b, h, i)
				delta := 0.0
				for d := 0; d < p.dimV; d++ {
					delta += dout[row*p.dimV+d] * f.out[row*p.dimV+d]
				}
				for j := 0; j < p.seqlenK; j++ {
					kv, weight := p.kvRow(b, h, j), f.weights[((b*p.headsQ+h)*p.seqlenQ+i)*p.seqlenK+j]
					dp := 0.0
					for d := 0; d < p.dimV; d++ {
						dp += dout[row*p.dimV+d] * v[kv*p.dimV+d]
						dv[kv*p.dimV+d] += weight * dout[row*p.dimV+d]
					}
					ds := weight * (dp - delta) * float64(DefaultScale(p.dim))
					for d := 0; d < p.dim; d++ {
						dq[row*p.dim+d] += ds * k[kv*p.dim+d]
						dk[kv*p.dim+d] += ds * q[row*p.dim+d]
					}
				}
			}
		}
	}
	return dq, dk, dv
}

// close holds the result to twice the error that the exact result has when it is rounded once to the
// type; for float32, whose sums are themselves in float32, to that of a sum over the keys.
func assertClose[T number](t testing.TB, what string, actual []T, expected []float64) {
	t.Helper()
	once, largest := 0.0, 1.0
	for _, x := range expected {
		if !math.IsInf(x, 0) {
			once = math.Max(once, math.Abs(wide(narrow[T](x))-x))
			largest = math.Max(largest, math.Abs(x))
		}
	}
	// 16 units in the last place of float32: what a sum of some hundred products may lose.
	bound := math.Max(2*once, 16*largest/(1<<23))
	if len(actual) != len(expected) {
		t.Fatalf("%s has %d elements, not %d", what, len(actual), len(expected))
	}
	for i, x := range actual {
		a, e := wide(x), expected[i]
		if a == e { // infinities too
			continue
		}
		if !(math.Abs(a-e) <= bound) { // so that NaN fails
			t.Fatalf("%s[%d] is %v, not %v: bound %.2e", what, i, a, e, bound)
		}
	}
}
