// Runs the code of a package with TVM's runtime alone: no Python, no compiler.
//
//   tar xf model.tar mod.so
//   run_package mod.so main result image.npy    ->    result0.npy, result1.npy, ...
//
// Inputs are in the order of the model, as `meta.json` lists them; so are the outputs. Further calls
// may follow behind "--": ... -- main second another.npy
//
// Built on the headers of apache-tvm-ffi (pip show -f), linked with TVM's runtime:
//
//   g++ -std=c++17 -O2 run_package.cc -I$FFI/include -L$TVM/lib -L$FFI/lib -Wl,--no-as-needed
//       -ltvm_runtime_extra -ltvm_runtime -ltvm_ffi
//
// Nothing is called from the first of them but by models that sort (TopK).
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;

namespace {

const std::map<std::string, DLDataType> kTypes = {
    {"|i1", {kDLInt, 8, 1}},   {"<i2", {kDLInt, 16, 1}},   {"<i4", {kDLInt, 32, 1}},
    {"<i8", {kDLInt, 64, 1}},  {"|u1", {kDLUInt, 8, 1}},   {"<u2", {kDLUInt, 16, 1}},
    {"<u4", {kDLUInt, 32, 1}}, {"<u8", {kDLUInt, 64, 1}},  {"<f2", {kDLFloat, 16, 1}},
    {"<f4", {kDLFloat, 32, 1}}, {"<f8", {kDLFloat, 64, 1}}, {"|b1", {kDLBool, 8, 1}},
};

// Kernels rely on tensors that begin at multiples of 64 bytes.
struct Aligned {
  void AllocData(DLTensor* tensor) {
    tensor->data = std::aligned_alloc(64, (ffi::GetDataSize(*tensor) + 63) / 64 * 64 + 64);
    if (tensor->data == nullptr) throw std::bad_alloc();
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

std::string Field(const std::string& header, const std::string& pattern, const std::string& path) {
  std::smatch found;
  if (!std::regex_search(header, found, std::regex(pattern))) throw std::runtime_error(path + ": is no .npy file");
  return found[1];
}

ffi::Tensor ReadNpy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char start[10];
  if (!file.read(start, 10) || std::string(start, 6) != "\x93NUMPY" || start[6] != 1) {
    throw std::runtime_error(path + ": cannot be read as .npy, version 1");
  }
  std::string header(static_cast<uint8_t>(start[8]) + 256 * static_cast<uint8_t>(start[9]), ' ');
  file.read(header.data(), header.size());
  auto type = kTypes.find(Field(header, "'descr': '([^']*)'", path));
  if (type == kTypes.end() || Field(header, "'fortran_order': (\\w+)", path) != "False") {
    throw std::runtime_error(path + ": its dtype or order is not supported");
  }
  std::vector<int64_t> shape;
  const std::string sizes = Field(header, "'shape': \\(([^)]*)\\)", path);
  const std::regex number("\\d+");
  for (std::sregex_iterator it(sizes.begin(), sizes.end(), number), end; it != end; ++it) {
    shape.push_back(std::stoll(it->str()));
  }
  ffi::Tensor tensor = ffi::Tensor::FromNDAlloc(Aligned(), ffi::ShapeView(shape.data(), shape.size()),
                                                type->second, DLDevice{kDLCPU, 0});
  const auto bytes = static_cast<std::streamsize>(ffi::GetDataSize(tensor));
  if (!file.read(static_cast<char*>(tensor.data_ptr()), bytes)) throw std::runtime_error(path + ": is truncated");
  return tensor;
}

void WriteNpy(const std::string& path, const ffi::Tensor& tensor) {
  std::string name;
  for (const auto& [text, type] : kTypes) {
    if (type == tensor.dtype()) name = text;
  }
  if (name.empty()) throw std::runtime_error(path + ": an output of this dtype cannot be written");
  std::string header = "{'descr': '" + name + "', 'fortran_order': False, 'shape': (";
  for (int64_t size : tensor.shape()) header += std::to_string(size) + ",";
  header += "), }";
  header.resize((10 + header.size() + 64) / 64 * 64 - 11, ' ');
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  file.write("\x93NUMPY\x01\x00", 8).put(static_cast<char>(header.size() % 256)).put(static_cast<char>(header.size() / 256));
  file << header;
  file.write(static_cast<const char*>(tensor.data_ptr()), ffi::GetDataSize(tensor));
  if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}

// One call: {function, prefix of the outputs' names, inputs...}.
void Run(const ffi::Module& machine, const std::vector<std::string>& words) {
  if (words.size() < 2) throw std::runtime_error("a call needs a function and a name for its outputs");
  std::vector<ffi::Tensor> inputs;
  for (size_t i = 2; i < words.size(); ++i) inputs.push_back(ReadNpy(words[i]));
  std::vector<ffi::AnyView> arguments(inputs.begin(), inputs.end());
  ffi::Optional<ffi::Function> function = machine->GetFunction(words[0]);
  if (!function.has_value()) throw std::runtime_error(words[0] + ": the package has no such function");
  ffi::Any result;
  function.value().CallPacked(arguments.data(), static_cast<int32_t>(arguments.size()), &result);
  if (auto one = result.as<ffi::Tensor>()) {
    WriteNpy(words[1] + "0.npy", *one);
    return;
  }
  int i = 0;
  for (const ffi::Tensor& one : result.cast<ffi::Array<ffi::Tensor>>()) {
    WriteNpy(words[1] + std::to_string(i++) + ".npy", one);
  }
}

ffi::Module Load(const std::string& path) {
  ffi::Module code = ffi::Module::LoadFromFile(std::filesystem::absolute(path).string());
  ffi::Module machine = code->GetFunction("vm_load_executable").value()().cast<ffi::Module>();
  constexpr int kPooled = 2;  // how the virtual machine allocates
  machine->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, kPooled);
  return machine;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: run_package MOD.SO FUNCTION OUTPUTS INPUT.npy... [-- FUNCTION OUTPUTS INPUT.npy...]\n";
    return 2;
  }
  try {
    const ffi::Module machine = Load(argv[1]);
    std::vector<std::string> words;
    for (int i = 2; i < argc; ++i) {
      if (std::string(argv[i]) != "--") {
        words.emplace_back(argv[i]);
        continue;
      }
      Run(machine, words);
      words.clear();
    }
    Run(machine, words);
  } catch (const std::exception& error) {
    std::cerr << "run_package: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
