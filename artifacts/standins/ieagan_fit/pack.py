import sys,torch; sys.path.insert(0,'.')
from safetensors.torch import save_file
from artifacts.standins.ieagan_layers import build_ieagan, list_fitted_shapes
from artifacts.standins.rebuild import compute_digest
seed,fitted=torch.load(sys.argv[1])
fitted={k:fitted[k].contiguous() for k in list_fitted_shapes()}
for k,s in list_fitted_shapes().items(): assert fitted[k].shape==s; 
st=build_ieagan(seed,fitted)
save_file(fitted,'artifacts/standins/ieagan.safetensors',{'family':'ieagan','seed':str(seed),'checkpoint':compute_digest(st)})
print(compute_digest(st)); print({k:(v.dtype,tuple(v.shape)) for k,v in fitted.items()})
